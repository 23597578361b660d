"""`trimtab steer`: write text with an edited residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.build import Wanted, check_early, make_recipe, open_pair
from trimtab.cli.console import out, print_json, say

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.spec import Sampling
    from trimtab.steer.generate import Record
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab steer "Once upon a time" --feature 123:1.5
  trimtab steer "Once upon a time" -f 123:1.5 -f 77:-1 --samples 3 --compare
  trimtab steer "The weather" -f 123 --op ablate --json
  trimtab steer "Hello" --vector direction.npy --site 9 --unit norm --strength 0.2
  trimtab steer "Hello" -f 123:1.5 --save sea.recipe.safetensors
  trimtab steer "Hello" --recipe sea.recipe.safetensors
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
    samples: o.Samples = 1,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    seed: o.Seed = 0,
    compare: Annotated[
        bool, typer.Option("--compare", help="Show the unsteered text of the same seed beside each.")
    ] = False,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Continue prompts while features, a vector or a recipe push the model.

    Where an SAE is used, each generated token is marked by how strongly the features fire when the unsteered
    model reads the text: block elements from low to high, on orange where the terminal has colour.
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
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=bool(features))
    recipe = make_recipe(wanted, sae)
    if save is not None:
        recipe.save(save)
        say(f"wrote {save}")
    steered = _write(model, prompts, recipe, samples, sampling, seed)
    plain = _write(model, prompts, None, samples, sampling, seed) if compare else []
    marked = _marks(model, sae, recipe, [*steered, *plain])
    if as_json:
        print_json(
            {
                "model": model.name,
                "sae": sae.name if sae else None,
                "recipe": repr(recipe),
                "recipe_digest": recipe.digest,
                "sampling": sampling.model_dump(mode="json"),
                "samples": [_as_dict(record, i < len(steered), mark) for i, (record, mark) in enumerate(marked)],
            }
        )
        return
    _print(marked[: len(steered)], marked[len(steered) :])


def _write(
    model: Model, prompts: list[str], recipe: Recipe | None, samples: int, sampling: Sampling, seed: int
) -> list[Record]:
    from trimtab.steer.generate import generate

    say(f"writing {len(prompts) * samples} {'steered' if recipe else 'unsteered'} text(s)")
    settings = sampling.model_dump()
    return generate(model, prompts, recipe, samples=samples, seed=seed, **settings)


Mark = tuple[list[str], list[float]]
"""The generated tokens' texts, and the strength at each."""


def _marks(
    model: Model, sae: SAE | None, recipe: Recipe, records: Sequence[Record]
) -> list[tuple[Record, Mark | None]]:
    """Each record with its marks, read by the unsteered model; None where there is no SAE to read with.

    The strength at a token is the sum over the recipe's features of f_i * ||d_i||, in residual units.
    """
    features = list(recipe.features_of(sae)) if sae is not None else []
    if sae is None or not features:
        return [(record, None) for record in records]
    from trimtab.evidence.trace import bos_length, pieces, trace

    lengths = sae.rows(features).norm(dim=1).cpu()
    found = trace(model, sae, features, [record.token_ids for record in records])
    marked: list[tuple[Record, Mark | None]] = []
    for record, activations in zip(records, found, strict=True):
        start = record.generated_from
        own = (activations @ lengths)[start - bos_length(model, record.token_ids) :]
        marked.append((record, (pieces(model, record.token_ids, start), own.tolist())))
    return marked


def _as_dict(record: Record, steered: bool, mark: Mark | None) -> dict[str, Any]:
    tokens, strengths = mark or (None, None)
    return {
        "steered": steered,
        "prompt": record.prompt,
        "text": record.text,
        "seed": record.seed,
        "token_ids": list(record.token_ids),
        "generated_from": record.generated_from,
        "tokens": tokens,
        "strengths": strengths,
    }


def _print(steered: Sequence[tuple[Record, Mark | None]], plain: Sequence[tuple[Record, Mark | None]]) -> None:
    from trimtab.report.blocks import narrow, visible

    console = out()
    top = max((max(mark[1], default=0.0) for _, mark in [*steered, *plain] if mark), default=0.0)
    for i, (record, mark) in enumerate(steered):
        rows = [("steered", record, mark)]
        if plain:
            rows.append(("unsteered", *plain[i]))
        console.print(Text(f"{visible(record.prompt)}  (seed {record.seed})", style="bold"))
        for label, one, own in rows:
            body = narrow(*own, maximum=top) if own else Text(visible(one.text))
            console.print(Text.assemble((f"  {label:<10}" if plain else "  ", "dim"), body))
        console.print()
