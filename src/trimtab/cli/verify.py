"""`trimtab verify`: steer, read the texts back with the unsteered model, and say whether it worked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, dosed, make_recipe, open_pair, parse_features
from trimtab.cli.console import out, save_recipe, say, typed
from trimtab.cli.judging import endpoint, judges_of, other_model
from trimtab.cli.progress import Bars
from trimtab.errors import InputError
from trimtab.files import write_file

if TYPE_CHECKING:
    from trimtab.evidence.values import Evidence
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.dose_curve import Chosen
    from trimtab.steer.dose_texts import Progress
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab verify "Once upon a time" --feature 11330
  trimtab verify "Once upon a time" --feature 11330:0.5
  trimtab verify "Once upon a time" "My day" -f 11330:0.5 --samples 20 --html report.html
  trimtab verify "Once upon a time" -f 6024:0.5 --pairs war --ask "The following text is about war."
  trimtab verify "My day" -f 11330:0.5 --judge-pairs food --judge-sae gemma-3-270m-block-9
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
    dose: o.DoseOption = None,
    recipe_file: o.RecipeFile = None,
    save: o.SaveFile = None,
    read: o.Read = None,
    samples: o.ArmSamples = 10,
    controls: o.Controls = None,
    contrast: o.Contrast = None,
    ask: o.Ask = None,
    judge_pairs: o.JudgePairs = None,
    judge_sae: o.JudgeSae = None,
    fluency_model: o.FluencyModel = None,
    judge_url: o.JudgeUrl = None,
    judge_model: o.JudgeModel = "default",
    judge_concept: o.JudgeConcept = None,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    seed: o.Seed = 0,
    curve: o.CurveOption = False,
    html: o.HtmlFile = None,
    markdown: o.MarkdownFile = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Prove what a recipe does.

    Writes texts with and without the recipe from the same seeds, and with controls that cost as much; reads all of them
    with the unsteered model; compares how often the features fire on generated tokens, and at what cost in likelihood.
    docs/evidence.md explains every number and rule. The exit code is 0 whatever the verdict is.
    """
    wanted = Wanted.check(features, unit, operation, vector, site, strength, recipe_file, dose)
    if not (features or recipe_file or read):
        raise InputError("A plain vector has no feature to read: name one, such as --read 123:1.")
    pairs, labelled = _pairs(contrast), _pairs(judge_pairs)
    to_read = parse_features(read, "add") if read else None
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert sae is not None
    recipe = make_recipe(wanted, sae)
    for prompt in prompts:
        model.encode_prompt(prompt, max_new_tokens)
    with Bars() as bars:
        recipe, chosen = dosed(recipe, wanted, model, sae, bars.show)
        seen = _dose_curve(model, sae, recipe, chosen, bars.show) if curve or (chosen and chosen.curve) else None
    save_recipe(recipe, save)
    judges = judges_of(
        model, labelled, pairs, judge_sae, other_model(fluency_model, device), endpoint(judge_url, judge_model),
        judge_concept or (pairs.name if pairs else None),
    )  # fmt: skip
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
            contrast=pairs,
            ask=ask,
            judges=judges,
            read=to_read,
            progress=bars.show,
        )
    made = evidence.made.model_copy(update={"command": typed()})
    evidence = evidence.model_copy(update={"made": made, "dose": seen})
    if html is not None:
        evidence.to_html(html)
        say(f"wrote {html}")
    if markdown is not None:
        with write_file(markdown) as part:
            part.write_text(evidence.to_markdown(), encoding="utf-8")
        say(f"wrote {markdown}")
    if as_json:
        print(evidence.to_json())
    else:
        _print(evidence)


def _pairs(name: str | None) -> ContrastSet | None:
    if name is None:
        return None
    from trimtab.find.sources import read

    return read(name)


def _dose_curve(model: Model, sae: SAE, recipe: Recipe, chosen: Chosen | None, progress: Progress) -> dict[str, Any]:
    """The curve on which the dose was chosen, or a new one around the recipe as it is, with the factor used."""
    from trimtab.steer.dose import measure_dose

    if chosen is not None and chosen.curve is not None:
        return {**chosen.curve.as_dict(), "used": chosen.factor}
    own = sae if recipe.reads(sae) else None
    return {**measure_dose(model, recipe, sae=own, progress=progress).as_dict(), "used": 1.0}


def _controls(given: list[str] | None) -> list[str] | None:
    return [] if given == ["none"] else given


def _print(evidence: Evidence) -> None:
    from trimtab.report import terminal

    console, data = out(), evidence.as_dict()
    console.print(terminal.verdict(data))
    console.print(terminal.table(data))
    for sample in terminal.samples(data, per_prompt=1):
        console.print(sample)
    if evidence.made.samples > 1:
        console.print("[dim]The first sample of each prompt; --html FILE writes all of them.[/dim]")
