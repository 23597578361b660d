"""`trimtab verify`: steer, read the texts back with the unsteered model, and say whether it worked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, make_recipe, open_pair, parse_features
from trimtab.cli.console import out, save_recipe, say
from trimtab.cli.progress import Bars
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.evidence.values import Evidence

EXAMPLES = """Examples:

\b
  trimtab verify "Once upon a time" --feature 123:1.5
  trimtab verify "Once upon a time" "My day" -f 123:1.5 --samples 20 --html report.html
  trimtab verify "Once upon a time" --recipe sea.recipe.safetensors --sae gemma-3-270m --json
"""


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
    recipe_file: o.RecipeFile = None,
    save: o.SaveFile = None,
    read: o.Read = None,
    samples: o.ArmSamples = 10,
    controls: o.Controls = None,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    seed: o.Seed = 0,
    html: o.HtmlFile = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Prove what a recipe does.

    Writes texts with and without the recipe from the same seeds, and with control edits; reads all of them with the
    unsteered model; compares how often the features fire on generated tokens, and at what cost in likelihood. The exit
    code is 0 whatever the verdict is.
    """
    wanted = Wanted.check(features, unit, operation, vector, site, strength, recipe_file)
    if not (features or recipe_file or read):
        raise InputError("A plain vector has no feature to read: name one, such as --read 123:1.")
    to_read = parse_features(read, "add") if read else None
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert sae is not None
    recipe = make_recipe(wanted, sae)
    save_recipe(recipe, save)
    from trimtab.evidence.verify import verify

    with Bars() as bars:
        evidence = verify(
            model,
            sae,
            recipe,
            prompts,
            samples=samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            controls=_controls(controls),
            read=to_read,
            progress=bars.show,
        )
    if html is not None:
        evidence.to_html(html)
        say(f"wrote {html}")
    if as_json:
        print(evidence.to_json())
    else:
        print_evidence(evidence)


def _controls(given: list[str] | None) -> list[str]:
    if not given:
        return ["random"]
    return [] if given == ["none"] else given


def print_evidence(evidence: Evidence) -> None:
    """The verdict, its reasons, and the scores of every arm."""
    console = out()
    console.print(Text(evidence.verdict, style="bold"))
    for reason in evidence.reasons:
        console.print(Text(f"  {reason}"))
    keys = {
        "fires on": f"firing:{evidence.primary}",
        "mean strength": f"mean:{evidence.primary}",
        "nats per token": "log_likelihood",
        "repeated": "repetition",
    }
    table = Table("", *keys, box=None, pad_edge=False)
    for arm in evidence.arms:
        means = [arm.scores[key].mean for key in keys.values()]
        shares = ("fires on", "repeated")
        cells = [
            "" if mean is None else f"{mean:.1%}" if name in shares else f"{mean:.2f}"
            for name, mean in zip(keys, means, strict=True)
        ]
        table.add_row(Text(arm.label), *cells)
    console.print(table)
