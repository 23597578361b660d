"""`trimtab steer`: write text with an edited residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, dosed, make_recipe, open_pair
from trimtab.cli.console import out, print_json, save_recipe
from trimtab.cli.progress import Bars

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.spec import Sampling
    from trimtab.steer.generate import Record
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab steer "Once upon a time" --feature 11330
  trimtab steer "Once upon a time" --feature 11330 --dose kl=0.3
  trimtab steer "Once upon a time" --feature 11330:0.5
  trimtab steer "Once upon a time" -f 11330:0.5 -f 6024:-0.3 --samples 3 --compare
  trimtab steer "The weather" -f 11330 --op ablate --json
  trimtab steer "Hello" --vector direction.npy --site 9 --unit norm --strength 0.2
  trimtab steer "Hello" -f 11330:0.5 --save food.recipe.safetensors
  trimtab steer "Hello" --recipe sea.recipe.safetensors
"""

Compare = Annotated[bool, typer.Option("--compare", help="Show the unsteered text of the same seed beside each.")]


@dataclass(frozen=True)
class Marked:
    """A record, the text of each generated token, and how strongly the features fire there (None: no SAE)."""

    record: Record
    tokens: tuple[str, ...]
    strengths: tuple[float, ...] | None


def run(
    prompts: o.Prompts,
    features: o.Features = None,
    unit: o.UnitOption = None,
    operation: o.OperationOption = "add",
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    vector: o.VectorFile = None,
    site: o.SiteOption = None,
    strength: o.Strength = None,
    dose: o.DoseOption = None,
    recipe_file: o.RecipeFile = None,
    save: o.SaveFile = None,
    samples: o.Samples = 1,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    seed: o.Seed = 0,
    compare: Compare = False,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Continue prompts while features, a vector or a recipe push the model.

    Where an SAE is used, each generated token is marked by how strongly the recipe's features fire when the
    unsteered model reads the text: block elements from low to high, on orange where the terminal has colour.
    """
    from trimtab.spec import Sampling

    wanted = Wanted.check(features, unit, operation, vector, site, strength, recipe_file, dose)
    sampling = Sampling.parse(
        {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
        }
    )
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=bool(features))
    recipe = make_recipe(wanted, sae)
    for prompt in prompts:
        model.encode_prompt(prompt, max_new_tokens)
    with Bars() as bars:
        recipe, chosen = dosed(recipe, wanted, model, sae, bars.show)
    save_recipe(recipe, save)
    with Bars() as bars:
        records = _write(model, prompts, recipe, samples, sampling, seed, bars)
        plain = _write(model, prompts, None, samples, sampling, seed, bars) if compare else []
    marked = _marks(model, sae, recipe, [*records, *plain])
    if as_json:
        print_json(
            {
                "model": model.name,
                "sae": sae.name if sae else None,
                "recipe": repr(recipe),
                "recipe_digest": recipe.digest,
                "dose": chosen.as_dict() if chosen else None,
                "sampling": sampling.model_dump(mode="json"),
                "samples": [_as_dict(one) for one in marked],
            }
        )
    else:
        _print(marked[: len(records)], marked[len(records) :])


def _write(
    model: Model, prompts: list[str], recipe: Recipe | None, samples: int, sampling: Sampling, seed: int, bars: Bars
) -> list[Record]:
    from trimtab.steer.generate import generate

    stage = "steered" if recipe else "unsteered"

    def show(p: Progress) -> None:
        bars.show(stage, p.tokens, p.tokens + p.left, f"{p.tokens_per_second:.0f} tokens/s")

    settings = sampling.model_dump()
    return generate(model, prompts, recipe, samples=samples, seed=seed, progress=show, **settings)


def _marks(model: Model, sae: SAE | None, recipe: Recipe, records: Sequence[Record]) -> list[Marked]:
    """The strength at a token is the sum over the recipe's features of f_i * ||d_i||, in residual units."""
    from trimtab.evidence.trace import bos_length, trace
    from trimtab.lm.pieces import pieces

    tokens = [tuple(pieces(model, one.token_ids, one.generated_from)) for one in records]
    features = list(recipe.reads(sae)) if sae is not None else []
    if sae is None or not features:
        return [Marked(one, own, None) for one, own in zip(records, tokens, strict=True)]
    lengths = sae.rows(features).norm(dim=1).cpu()
    found = trace(model, sae, features, [one.token_ids for one in records])
    marked = []
    for one, own, activations in zip(records, tokens, found, strict=True):
        start = one.generated_from - bos_length(model, one.token_ids)
        marked.append(Marked(one, own, tuple((activations @ lengths)[start:].tolist())))
    return marked


def _as_dict(marked: Marked) -> dict[str, Any]:
    record = marked.record
    return {
        "steered": record.recipe is not None,
        "prompt": record.prompt,
        "text": record.text,
        "seed": record.seed,
        "sample": record.sample,
        "finished": record.finished,
        "token_ids": list(record.token_ids),
        "generated_from": record.generated_from,
        "tokens": marked.tokens,
        "strengths": marked.strengths,
    }


def _print(steered: Sequence[Marked], plain: Sequence[Marked]) -> None:
    from trimtab.report.blocks import narrow, visible

    console = out()
    top = max((max(one.strengths, default=0.0) for one in [*steered, *plain] if one.strengths), default=0.0)
    for i, one in enumerate(steered):
        heading = f"{visible(one.record.prompt)}  (seed {one.record.seed}, sample {one.record.sample})"
        console.print(Text(heading, style="bold"))
        for row in (one, *plain[i : i + 1]):
            label = ("  steered    " if row is one else "  unsteered  ") if plain else "  "
            strengths = row.strengths if row.strengths is not None else [0.0] * len(row.tokens)
            console.print(Text(label, style="dim") + narrow(row.tokens, strengths, top))
        console.print()
