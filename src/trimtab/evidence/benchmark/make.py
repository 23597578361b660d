"""From a concept to a recipe at a KL budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.errors import InputError
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import factor_for_kl, scaled


@dataclass(frozen=True)
class Made:
    """A recipe at its budget, and what is said of it. What cannot be made is None with its `problem`: the method then
    leaves the model as it is.
    """

    recipe: Recipe | None
    about: dict[str, Any]


def make(kit: Kit, method: str, budget: float, texts: Sequence[str]) -> Made:
    """The recipe of a method, brought to `budget` nats per token on `texts`. Made once for all budgets."""
    build = METHODS[method].recipe
    assert build is not None
    if method not in kit.recipes:
        kit.recipes[method] = build(kit)
    base = kit.recipes[method]
    if base is None:
        return Made(None, {"problem": "it found nothing to steer with"})
    try:
        cost = factor_for_kl(kit.model, base, budget, texts)
    except InputError as error:
        return Made(None, {"problem": str(error)})
    recipe = scaled(base, cost.factor)
    about = {"problem": None, "what": repr(recipe), "digest": recipe.digest, "kl": cost.kl, "error": cost.error}
    return Made(recipe, about)
