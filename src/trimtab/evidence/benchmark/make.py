"""From a concept to recipes at the KL budgets, kept as recipe files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.prompts import DEV
from trimtab.evidence.benchmark.units import Folder, Unit
from trimtab.files import read_json, write_json
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import factor_for_kl, scaled

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

DOSE_TOKENS = 32
"""Length of the unsteered texts on the dev prompts, on which strengths are chosen. The KL that is reported is measured
on the unsteered texts of the prompts that are written on."""


def dose_texts(folder: Folder, model: Model, seed: int) -> tuple[str, ...]:
    """One unsteered text for each dev prompt, prompt included; written once for a folder."""
    path = folder.file("made", "dose-texts")
    if not path.exists():
        room = DOSE_TOKENS if model.context is None else model.context - max(len(model.encode(one)) for one in DEV)
        records = generate(model, DEV, max_new_tokens=min(DOSE_TOKENS, room), seed=seed)
        write_json(path, [record.prompt + record.text for record in records])
    return tuple(read_json(path))


def make(folder: Folder, kit: Kit, method: str, units: Sequence[Unit], texts: Sequence[str]) -> None:
    """Make the recipe of one method and bring it to the budget of each of `units`, all of this method and concept.

    The KL is measured on `texts`.

    What cannot be made is written down with its reason: the method then leaves the model as it is.
    """
    build = METHODS[method].recipe
    if build is None:
        return
    base = build(kit)
    for unit in units:
        assert unit.budget is not None
        if base is None:
            write_json(folder.file("made", unit.path), _made(unit, "it found nothing to steer with"))
            continue
        try:
            cost = factor_for_kl(kit.model, base, unit.budget, texts)
        except InputError as error:
            write_json(folder.file("made", unit.path), _made(unit, str(error)))
            continue
        recipe = scaled(base, cost.factor)
        recipe.save(folder.file("made", unit.path, ".recipe.safetensors"))
        write_json(
            folder.file("made", unit.path),
            {**_made(unit, None), "what": repr(recipe), "digest": recipe.digest, "kl": cost.kl, "error": cost.error},
        )


def _made(unit: Unit, problem: str | None) -> dict[str, Any]:
    return {**unit.as_dict(), "problem": problem}


def recipe_of(folder: Folder, unit: Unit, saes: Sequence[SAE]) -> Recipe | None:
    """The recipe that was made for a unit; None for one without."""
    if unit.budget is None or read_json(folder.file("made", unit.path))["problem"] is not None:
        return None
    path = folder.file("made", unit.path, ".recipe.safetensors")
    return Recipe.load(path, saes[0] if len(saes) == 1 else None)
