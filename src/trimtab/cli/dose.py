"""`trimtab dose`: what a recipe costs and does at each strength."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, make_recipe, open_pair
from trimtab.cli.console import out, say
from trimtab.cli.progress import Bars
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.steer.dose_curve import DoseCurve

EXAMPLES = """Examples:

\b
  trimtab dose --feature 11330
  trimtab dose -f 11330:0.5 -f 6024:-0.3 --svg dose.svg
  trimtab dose -f 11330 --op clamp --factors 0.5,1,2,4 --texts 0 --json
  trimtab dose --recipe sea.recipe.safetensors --sae gemma-3-270m
"""

Factors = Annotated[
    str | None,
    typer.Option(
        "--factors",
        metavar="LIST",
        help="Multiples of the strengths to measure, such as -1,0.5,1,2.",
        show_default="those that cost 0.1 to 3.2 nats per token, on both sides of 0",
    ),
]
TextCount = Annotated[
    int | None,
    typer.Option("--texts", min=0, max=48, help="Texts written at each strength; 0 for none.", show_default="16"),
]
SvgFile = Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the curve.")]


def run(
    features: o.Features = None,
    unit: o.UnitOption = None,
    operation: o.OperationOption = "add",
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    vector: o.VectorFile = None,
    site: o.SiteOption = None,
    strength: o.Strength = None,
    recipe_file: o.RecipeFile = None,
    factors: Factors = None,
    texts: TextCount = None,
    seed: o.Seed = 0,
    svg: SvgFile = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Show what a recipe costs and does, from weak to strong and turned round.

    KL is how far predictions move on texts of the model's own, in nats per token. Perplexity (times that of unsteered
    text) and repetition are of text written at that strength and read by the unsteered model, response is what the
    recipe's features do in it. Strengths that are not given count as 1; those that are given are proportions.
    """
    wanted = Wanted.check(features, unit, operation, vector, site, strength, recipe_file, "auto")
    chosen = _numbers(factors) if factors is not None else None
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=bool(features))
    recipe = make_recipe(wanted, sae)
    from trimtab.steer.dose import TEXTS, measure_dose

    with Bars() as bars:
        curve = measure_dose(
            model, recipe, chosen, sae=sae if sae is not None and recipe.reads(sae) else None,
            texts=TEXTS if texts is None else texts, seed=seed, progress=bars.show,
        )  # fmt: skip
    if svg is not None:
        from trimtab.report.curves import draw
        from trimtab.steer.dose_picture import picture

        draw(svg, picture(curve))
        say(f"wrote {svg}")
    if as_json:
        print(curve.to_json())
    else:
        _print(curve)


def _numbers(given: str) -> list[float]:
    try:
        return [float(one) for one in given.split(",")]
    except ValueError:
        raise InputError(f"--factors is a list of numbers, such as -1,0.5,1,2, not {given!r}.") from None


def _print(curve: DoseCurve) -> None:
    from rich.table import Table

    table = Table("times", "strengths", "KL", "± s.e.", "perplexity", "repetition", "response", "", box=None)
    for point in curve.points:
        table.add_row(
            f"{point.factor:.3g}",
            curve.strengths(point.factor),
            f"{point.kl:.3f}",
            f"{point.kl_error:.3f}",
            *("" if value is None else form.format(value) for value, form in (
                (point.perplexity, "{:.2f}"), (point.repetition, "{:.0%}"), (point.response, "{:.1f}"),
            )),
            curve.state(point),
        )  # fmt: skip
    console = out()
    console.print(f"What {curve.recipe} costs and does, by how many times as strong it is made", highlight=False)
    console.print(table)
    if curve.unsteered is not None:
        plain = curve.unsteered
        said = f"Unsteered: {plain.repetition:.0%} repetition"
        if plain.response is not None:
            said += f", response {plain.response:.1f}"
        console.print(f"{said}. {curve.in_words()}", highlight=False)
