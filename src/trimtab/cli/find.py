"""`trimtab find`: from a contrast to a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trimtab.cli import options as o
from trimtab.cli.build import open_several
from trimtab.cli.console import command_line, out, print_json, save_recipe, say
from trimtab.cli.progress import Bars
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab find --pairs sea -o sea.recipe.safetensors
  trimtab find --pairs my-pairs.jsonl -o mine.recipe.safetensors --html mine.html
  trimtab find --positive yes.txt --negative no.txt --json
  trimtab find --pairs agreeableness.jsonl.gz --view answer --pool answer --fit ridge --choose "cluster 1"
"""

# The values of find's own types, written out so that --help loads nothing heavy.
View = Literal["statement", "answer"]
Pool = Literal["mean", "max", "last", "answer"]
Align = Literal["left", "right", "diff", "none"]
Order = Literal["input", "output", "gain", "both"]
Similarity = Literal["cosine", "phi", "jaccard", "joint"]
Clusterer = Literal["agglomerative", "components", "hdbscan", "spectral"]
Method = Literal[
    "mean_difference", "equal", "per_prompt", "ridge", "non_negative", "elastic_net", "logistic", "fgaa",
    "caa", "pca", "probe",
]  # fmt: skip


def run(
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="FILE_OR_NAME",
            help="A shipped set (`trimtab pairs --list`), a .jsonl, .json, .csv, .tsv or .parquet file (also .gz), "
            "a model-written eval, or a Hugging Face dataset.",
        ),
    ] = None,
    positive: Annotated[
        Path | None, typer.Option("--positive", metavar="FILE", help="Texts that show the concept, one a line.")
    ] = None,
    negative: Annotated[
        Path | None, typer.Option("--negative", metavar="FILE", help="Texts that do not, one a line.")
    ] = None,
    view: Annotated[
        View, typer.Option("--view", help="Of a model-written eval: its statements, or answers to its questions.")
    ] = "statement",
    columns: Annotated[
        str, typer.Option("--columns", metavar="A,B", help="The two columns of a file of pairs.")
    ] = "positive,negative",
    split: Annotated[str, typer.Option("--split", help="The split of a Hugging Face dataset.")] = "train",
    limit_pairs: Annotated[
        int | None,
        typer.Option("--take", min=8, metavar="N", help="Use N pairs drawn at random.", show_default="all"),
    ] = None,
    model_name: o.ModelName = o.DEFAULT,
    sae_names: o.SaeNames = None,
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="RECIPE", help="Write the recipe, by custom NAME.recipe.safetensors."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one self-contained page.")
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Show what is written after this with the recipe, without it and against it; may be given several "
            "times. 'none' for none.",
            show_default="three everyday openings",
        ),
    ] = None,
    pool: Annotated[
        Pool | None, typer.Option("--pool", help="How a text's tokens become one activation.", show_default="mean")
    ] = None,
    align: Annotated[
        Align | None,
        typer.Option("--align", help="How token positions of different texts are matched.", show_default="right"),
    ] = None,
    order: Annotated[
        Order | None,
        typer.Option(
            "--order",
            help="Best features first by what they read (input), what they write (output, gain), or both.",
            show_default="both",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Most features kept at each site.", show_default="32")
    ] = None,
    similarity: Annotated[
        Similarity | None,
        typer.Option(
            "--similarity",
            help="What makes features alike: decoder rows (cosine), firing together (phi, jaccard), or both.",
            show_default="joint",
        ),
    ] = None,
    clusterer: Annotated[
        Clusterer | None, typer.Option("--cluster", help="Clustering method.", show_default="agglomerative")
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option(
            "--fit",
            help="How features are weighed; caa, pca and probe make a plain vector without features. Given, the "
            "recipe is made this way; else of what does most, with features or without.",
            show_default="mean_difference",
        ),
    ] = None,
    choice: Annotated[
        str | None,
        typer.Option(
            "--choose",
            metavar="NAME",
            help="The candidate to make the recipe of, such as 'best feature', 'all features', 'cluster 1' or "
            "'many blocks'.",
            show_default="the best on held-out texts",
        ),
    ] = None,
    kl: Annotated[
        float | None,
        typer.Option(
            "--kl", help="Strength of the recipe, as its cost in nats per token (docs/dose.md).", show_default="0.3"
        ),
    ] = None,
    seed: o.Seed = 0,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Find the features that a contrast switches on, and make a recipe of what steers best.

    The pairs are split: features and weights come from one part, what to steer with is chosen on a second, and what
    the choice is worth is measured on a third that chose nothing. Finding nothing is an answer, with exit code 0.
    """
    contrast = read_contrast(pairs, positive, negative, view, columns, split)
    contrast = contrast if limit_pairs is None else contrast.take(limit_pairs, seed)
    from trimtab.find.find import Settings, find
    from trimtab.find.show import to_json

    asked: dict[str, Any] = {
        "pool": pool, "order": order, "limit": limit, "similarity": similarity, "clusterer": clusterer,
        "method": method, "choice": choice, "kl": kl, "seed": seed or None,
    }  # fmt: skip
    given = {key: value for key, value in asked.items() if value is not None}
    if align is not None:
        given["align"] = None if align == "none" else align
    settings = Settings.parse(given)
    model, saes = open_several(model_name, sae_names, device, dtype, blocks)
    with Bars() as bars:
        found = find(model, saes, contrast, settings, progress=bars.show)
    data = to_json(found)
    data["lines"] = [] if found.recipe is None else _lines(model, saes, found.recipe, prompts, seed)
    if found.recipe is not None:
        save_recipe(found.recipe, to)
    elif to is not None:
        say(f"no recipe was found, so {to} was not written")
    if html is not None:
        from trimtab.report.finding_page import write_finding

        write_finding(html, data, command_line())
        say(f"wrote {html}")
    if as_json:
        print_json(data)
        return
    from trimtab.report.finding import finding

    for part in finding(data):
        out().print(part)


def _lines(model: Model, saes: list[SAE], recipe: Recipe, prompts: list[str] | None, seed: int) -> list[dict[str, Any]]:
    from trimtab.evidence.lines import PROMPTS, steered_lines

    chosen = PROMPTS if prompts is None else [] if prompts == ["none"] else prompts
    if not chosen:
        return []
    return [one.as_dict() for one in steered_lines(model, saes, recipe, chosen, seed=seed)]


def read_contrast(
    pairs: str | None, positive: Path | None, negative: Path | None, view: View, columns: str, split: str
) -> ContrastSet:
    """The contrast set that the options name."""
    from trimtab.find.sources import read

    if pairs is not None and (positive or negative):
        raise InputError("Give either --pairs, or --positive and --negative.")
    if pairs is None:
        if positive is None or negative is None:
            raise InputError("Nothing to find: give --pairs FILE_OR_NAME, or --positive FILE and --negative FILE.")
        return read(positive, negative)
    names = columns.split(",")
    if len(names) != 2 or not all(names):
        raise InputError(f"--columns takes two names with a comma, such as positive,negative, not {columns!r}.")
    return read(pairs, view=view, columns=(names[0], names[1]), split=split)
