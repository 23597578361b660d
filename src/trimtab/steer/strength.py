"""The strength of a recipe, and the strength at which it costs what it may cost.

A recipe is taken as a direction: `scaled(recipe, factor)` makes it stronger or weaker. The cost is the mean
KL(steered || unsteered) per token, see `trimtab.steer.kl`, on texts of the model's own, see `trimtab.steer.own`, or on
given ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.spec import finite
from trimtab.steer.kl import beginning, kl_by_text
from trimtab.steer.own import own_texts
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.build import Edit

NEAR = 1.3
"""The cost is measured at strengths this far apart, on both sides of the budget."""

TEXT_TOKENS = 40
PLACES = 12
"""Of each text the first `TEXT_TOKENS` tokens are read, and predictions compared at `PLACES` of them."""

_FEW, _FEW_TOKENS, _FEW_PLACES = 8, 24, 4  # texts, tokens and places for a first, rough look
_WIDEST = 2.0**24
_ROUGH = tuple(2.0 ** (1.5 * k) for k in range(-3, 3))
_ROUNDS = 8


@dataclass(frozen=True)
class Cost:
    """The cost of one strength: mean KL in nats per token, and its standard error over the texts."""

    factor: float
    kl: float
    error: float


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """The recipe made `factor` times as strong; 1 leaves it as it is.

    Strengths of `add` and `vector`, and targets of `clamp`, `min` and `project`, are multiplied. `scale` by s becomes
    scale by 1 + factor * (s - 1). A ceiling (`max`) is divided, since a lower one is stronger. Raises `InputError` for
    `ablate` and for a projection to 0, which have no strength.
    """
    number = finite(factor, "The factor of a dose")
    about = recipe.about.model_copy(update={"evidence": {}})
    return Recipe(tuple(_scaled(edit, number) for edit in recipe.edits), about)


def _scaled(edit: Edit, factor: float) -> Edit:
    spec = edit.spec
    if spec.op == "ablate" or (spec.op == "project" and spec.strengths[0] == 0):
        what = "ablate sets a feature to 0" if spec.op == "ablate" else "projecting to 0 removes a direction"
        raise InputError(
            f"There is no dose to choose: {what}, which is done or not done. To go part of the way, use "
            + ("scale with a factor between 0 and 1." if spec.op == "ablate" else "project with a target, or vector.")
        )
    if spec.op == "scale":
        strengths = tuple(1 + factor * (s - 1) for s in spec.strengths)
    elif spec.op == "max":
        if factor <= 0:
            raise InputError(f"The strength of a ceiling (max) is multiplied by a number above 0, not {factor:g}.")
        strengths = tuple(s / factor for s in spec.strengths)
    else:
        strengths = tuple(s * factor for s in spec.strengths)
    strengths = tuple(finite(s, "The multiplied strength") for s in strengths)
    return replace(edit, spec=spec.model_copy(update={"strengths": strengths}))


def costs(
    model: Model,
    recipe: Recipe,
    factors: Sequence[float],
    prompts: Sequence[str] | None = None,
    *,
    tokens: int = TEXT_TOKENS,
    places: int = PLACES,
) -> list[Cost]:
    """The cost of the recipe at each factor, all in one batch with a row each, on `prompts` (None: `own_texts`).

    Raises `InputError` when there is nothing to measure, or when the recipe's scopes select no token of any text.
    """
    if not factors or (prompts is not None and not prompts):
        raise InputError("A dose needs at least one strength and one text.")
    found = costs_of(model, [scaled(recipe, factor) for factor in factors], prompts, tokens=tokens, places=places)
    return [replace(cost, factor=factor) for cost, factor in zip(found, factors, strict=True)]


def costs_of(
    model: Model,
    recipes: Sequence[Recipe],
    prompts: Sequence[str] | None = None,
    *,
    tokens: int = TEXT_TOKENS,
    places: int = PLACES,
) -> list[Cost]:
    """The cost of each of several recipes, as they are (`factor` is 1)."""
    texts = own_texts(model) if prompts is None else prompts
    ids = [beginning(model, text, tokens) for text in texts]
    sums, counts = kl_by_text(model, recipes, ids, places)
    out = []
    for total, count in zip(sums, counts, strict=True):
        if not bool(count.any()):
            longest = max(map(len, ids))
            raise InputError(
                f"The cost of this recipe cannot be measured: its scope selects none of the tokens of the texts, "
                f"of which the first {longest} are read."
            )
        mean = float(total.sum() / count.sum())
        n = int((count > 0).sum())
        spread = float(((total - mean * count).square().sum() * n / max(1, n - 1)).sqrt() / count.sum())
        out.append(Cost(1.0, mean, spread))
    return out


def factors_for_kl(
    model: Model, recipe: Recipe, budgets: Sequence[float], prompts: Sequence[str] | None = None
) -> list[Cost]:
    """The smallest factors above 0 at which the recipe costs each of `budgets`, in nats per token.

    A few texts show roughly where the cost first passes each budget; there it is measured on all of them, at two points
    that close in until they lie within `NEAR` of each other and on both sides of it, and the line between them gives
    factor and cost. The cost need not grow steadily: of several crossings it is the first that the rough look could
    see. Raises `InputError` when the cost never reaches a budget, or never falls to it.
    """
    if not all(finite(kl, "The KL to reach") > 0 for kl in budgets):
        raise InputError(f"The KL to reach must be above 0, not {', '.join(f'{kl:g}' for kl in budgets)}.")
    if scaled(recipe, 2.0) == recipe:
        raise InputError("The strengths of this recipe are all 0, so there is nothing to multiply.")
    prompts = own_texts(model) if prompts is None else prompts
    seen = rough_costs(model, recipe, min(budgets), max(budgets), prompts)
    guesses = [crossing(seen, kl) or _refuse(seen, kl) for kl in budgets]
    wanted = [guess * side for guess in guesses for side in (1 / NEAR**0.5, NEAR**0.5)]
    known: list[Cost] = []
    for _ in range(_ROUNDS):
        known = sorted([*known, *costs(model, recipe, wanted, prompts)], key=lambda cost: cost.factor)
        wanted = [factor for kl in budgets for factor in _closing_in(known, kl)]
        if not wanted:
            break
    return [Cost(crossing(known, kl) or _refuse(known, kl), kl, _error(known, kl)) for kl in budgets]


def factor_for_kl(model: Model, recipe: Recipe, kl: float, prompts: Sequence[str] | None = None) -> Cost:
    """`factors_for_kl` for a single budget."""
    return factors_for_kl(model, recipe, [kl], prompts)[0]


def _closing_in(known: Sequence[Cost], kl: float) -> list[float]:
    """Where to measure next; nothing when two points near each other lie on both sides of `kl`."""
    for low, high in pairwise(known):
        if low.kl < kl <= high.kl:
            middle = crossing([low, high], kl) or high.factor
            near = high.factor <= low.factor * NEAR**1.01
            return [] if near else [middle / NEAR**0.5, middle * NEAR**0.5]
    edge = known[-1] if known[-1].kl < kl else known[0]
    step = math.sqrt(kl / max(edge.kl, 1e-12))
    return [edge.factor * min(max(step, 1 / 4), 4.0) * (NEAR**0.5 if step > 1 else NEAR**-0.5)]


def _error(known: Sequence[Cost], kl: float) -> float:
    """The standard error at `kl`: that of the nearest point, in proportion."""
    nearest = min(known, key=lambda cost: abs(cost.kl - kl))
    return nearest.error * kl / max(nearest.kl, 1e-12)


def _refuse(seen: Sequence[Cost], kl: float) -> float:
    low = seen[-1].kl < kl
    edge = seen[-1] if low else seen[0]
    raise InputError(
        f"{'No' if low else 'Every'} strength of this recipe costs {'' if low else 'more than '}{kl:g} nats per token: "
        f"at {edge.factor:g} times what was given it costs {edge.kl:.3g}"
        + (", and more strength adds nothing." if low else ".")
    )


def rough_costs(model: Model, recipe: Recipe, low: float, high: float, prompts: Sequence[str]) -> list[Cost]:
    """Costs on a few short texts, by factor, from below `low` to above `high` nats as far as the recipe goes.

    The factors are powers of 2**1.5, which reach out until the costs do, or no longer change.
    """
    known: list[Cost] = []
    wanted = _ROUGH
    windowed = any(edit.spec.scope.window is not None for edit in recipe.edits)  # which may lie beyond a short text
    tokens = TEXT_TOKENS if windowed else _FEW_TOKENS
    while wanted:
        new = costs(model, recipe, wanted, prompts[:_FEW], tokens=tokens, places=_FEW_PLACES)
        known = sorted([*known, *new], key=lambda cost: cost.factor)
        first, last = known[0], known[-1]
        flat = abs(new[-1].kl - new[0].kl) < 0.02 * new[0].kl and new[0].kl > 1e-4
        up = max(cost.kl for cost in known) < high and last.factor < _WIDEST and not (flat and new[-1] is last)
        down = first.kl >= low and first.factor > 1 / _WIDEST and not (flat and new[0] is first)
        if up:
            wanted = tuple(last.factor * 2.0 ** (1.5 * k) for k in range(1, 6))
        else:
            wanted = tuple(first.factor * 2.0 ** (1.5 * k) for k in range(-5, 0)) if down else ()
    return known


def crossing(known: Sequence[Cost], kl: float) -> float | None:
    """Where the line between two neighbours first passes `kl`, on logarithmic scales; None when it does not."""
    for low, high in pairwise(known):
        if low.kl < kl <= high.kl:
            if low.kl <= 0:
                return (low.factor + high.factor) / 2
            share = math.log(kl / low.kl) / math.log(high.kl / low.kl)
            return low.factor * (high.factor / low.factor) ** share
    return None
