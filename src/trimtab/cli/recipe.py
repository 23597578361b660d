"""`trimtab recipe`: what a recipe file does, and recipes in other projects' formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab recipe show sea.recipe.safetensors --json
  trimtab recipe export sea.recipe.safetensors --to gguf -o sea.gguf
  trimtab recipe export sea.recipe.safetensors --to neuronpedia-vector --name gemma-3-270m -o sea.json
  trimtab recipe import their.gguf -o their.recipe.safetensors
  trimtab recipe import request.json --from neuronpedia-steer --sae gemma-3-270m -o it.recipe.safetensors

docs/formats.md says what each format can carry.
"""

# The names of trimtab.steer.exchange.formats, written out so that --help need not load torch.
Format = Literal[
    "gguf", "tensors", "steering-vectors", "neuronpedia-vector", "neuronpedia-steer", "lm-eval", "vllm-lens"
]
RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe file.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The file to write.", show_default=False)]
Sae = Annotated[
    str | None,
    typer.Option(
        "--sae", metavar="NAME", help="The SAE, for files that hold features without vectors.", show_default="none"
    ),
]

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Show recipe files, and exchange them with other projects."
)


@group.command()
def show(recipe_file: RecipePath, sae_name: Sae = None, as_json: o.Json = False) -> None:
    """Say what a recipe does, and where it comes from."""
    from trimtab.steer.recipe import Recipe

    recipe = Recipe.load(recipe_file, _sae(sae_name))
    if as_json:
        print_json(_values(recipe))
        return
    out().print(Text("\n".join(_lines(recipe))))


@group.command()
def export(
    recipe_file: RecipePath,
    to: Annotated[Format, typer.Option("--to", help="The format.", show_default=False)],
    path: Out,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            help="What the other project calls it: the model (gguf, neuronpedia-vector), MODEL/SOURCE "
            "(neuronpedia-steer), RELEASE/ID of the SAE (lm-eval).",
            show_default="what the recipe says",
        ),
    ] = None,
    sae_name: Sae = None,
    as_json: o.Json = False,
) -> None:
    """Write a recipe in another project's format, and say what is lost.

    A recipe that the format cannot carry is refused, with the reason, and nothing is written.
    """
    from trimtab.steer.exchange.formats import export
    from trimtab.steer.recipe import Recipe

    notes = export(Recipe.load(recipe_file, _sae(sae_name)), path, to, name)
    _wrote(path, notes, as_json)


@group.command(name="import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Another project's file.", show_default=False)],
    recipe_file: Out,
    format: Annotated[
        Format | None, typer.Option("--from", help="The format.", show_default="by the suffix: .gguf, .csv")
    ] = None,
    sae_name: Sae = None,
    as_json: o.Json = False,
) -> None:
    """Make a recipe of another project's file, and say what is not known of it. Nothing is unpickled."""
    from trimtab.steer.exchange.formats import read

    recipe, notes = read(path, format, _sae(sae_name))
    recipe.save(recipe_file)
    _wrote(recipe_file, notes, as_json)


def _wrote(path: Path, notes: tuple[str, ...], as_json: bool) -> None:
    for note in notes:
        say(f"note: {note}")
    say(f"wrote {path}")
    if as_json:
        print_json({"file": str(path), "notes": list(notes)})


def _sae(name: str | None) -> SAE | None:
    if name is None:
        return None
    from trimtab.sae.load import open_sae

    say(f"opening the SAE {name}")
    return open_sae(name)


def _values(recipe: Recipe) -> dict[str, Any]:
    return {
        "digest": recipe.digest,
        "edits": [edit.spec.model_dump(mode="json") for edit in recipe.edits],
        "about": recipe.about.model_dump(mode="json"),
    }


def _lines(recipe: Recipe) -> list[str]:
    lines = [f"recipe {recipe.digest[:12]}, {len(recipe.edits)} edit{'s' if len(recipe.edits) > 1 else ''}"]
    for edit in recipe.edits:
        spec = edit.spec
        lines.append(f"  {spec.op} at {spec.site}, {_tokens(spec.scope.model_dump())}")
        if spec.sae is None:
            length = float(edit.tensors["vector"].norm())
            wide = len(edit.tensors["vector"])
            value = "component set to" if spec.op == "project" else f"strength ({spec.unit})"
            lines.append(f"    vector of width {wide}, length {length:.4g}; {value} {spec.strengths[0]:g}")
            continue
        lines.append(
            f"    features of {spec.sae.name}, in unit {spec.unit}:" if spec.op != "ablate" else f"    {spec.sae.name}:"
        )
        pairs = zip(spec.features, spec.strengths, strict=True)
        lines += [f"      {index}" + ("" if spec.op == "ablate" else f": {value:g}") for index, value in pairs]
    about = recipe.about
    bound = f"made for {about.model} ({about.model_fingerprint})" if about.model_fingerprint else "bound to no model"
    lines.append(f"  {bound}")
    if about.contrast:
        lines.append(f"  found with the contrast set {about.contrast}")
    lines += [f"  {name}: {setting.value}" for name, setting in about.settings.items() if setting.given]
    return lines


def _tokens(scope: dict[str, Any]) -> str:
    parts = [name for name in ("prompt", "generated") if scope[name]]
    words = " and ".join(parts) + " tokens"
    if scope["window"]:
        start, stop = scope["window"]
        words += f", positions {start} to {'the end' if stop is None else stop - 1}"
    if scope["exclude"]:
        words += f", not {', '.join(map(str, scope['exclude']))}"
    return words + (", BOS too" if scope["bos"] else ", not BOS")
