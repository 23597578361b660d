"""`trimtab verify`: steer, read the texts back with the unsteered model, and say whether it worked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, check_early, make_recipe, open_pair
from trimtab.cli.console import out, say

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
    unit: o.UnitOption = "max_act",
    operation: o.OperationOption = "add",
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    vector: o.VectorFile = None,
    site: o.SiteOption = None,
    strength: o.Strength = 1.0,
    recipe_file: o.RecipeFile = None,
    save: o.SaveFile = None,
    read: o.Read = None,
    samples: o.ArmSamples = 10,
    controls: o.Controls = None,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
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
    from trimtab.spec import Sampling

    wanted = Wanted(tuple(features or ()), unit, operation, vector, site, strength, recipe_file)
    check_early(wanted)
    sampling = Sampling.parse(
        {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "min_p": min_p,
        }
    )
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert sae is not None
    recipe = make_recipe(wanted, sae)
    if save is not None:
        recipe.save(save)
        say(f"wrote {save}")
    from trimtab.evidence.verify import verify

    evidence = verify(model, sae, recipe, prompts, samples=samples, sampling=sampling, seed=seed)
    if html is not None:
        evidence.to_html(html)
        say(f"wrote {html}")
    if as_json:
        print(evidence.to_json())
        return
    _print(evidence)


def _print(evidence: Evidence) -> None:
    console = out()
    console.print(Text(evidence.verdict, style="bold"))
    for reason in evidence.reasons:
        console.print(Text(f"  {reason}"))
