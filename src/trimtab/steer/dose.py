"""The dose: how strongly to apply a recipe, chosen from what its strength was measured to cost.

    curve = measure_dose(model, recipe)
    chosen = choose(model, recipe, "kl=0.5")
    generate(model, "Once upon a time", chosen.recipe)

A recipe is taken as a direction: `scaled(recipe, factor)` makes it stronger or weaker, and the dose is a factor. The
cost is the mean KL(steered || unsteered) per token on neutral texts, see `trimtab.steer.kl`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.spec import Dose, finite
from trimtab.steer.kl import kl_by_text
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.build import Edit

TOLERANCE = 0.03
"""A dose has been found when its measured KL is within this share of the budget."""

TEXT_TOKENS = 48
PLACES = 8
"""Of each neutral text the first `TEXT_TOKENS` tokens are read, and predictions compared at `PLACES` of them."""

_FEW, _FEW_TOKENS, _FEW_PLACES = 8, 24, 4  # texts, tokens and places for a first, rough look
_WIDEST = 2.0**24
_ROUGH = tuple(2.0**k for k in range(-4, 5))
_ROUNDS = 8


@dataclass(frozen=True)
class Cost:
    """The cost of one strength: mean KL in nats per token, and its standard error over the texts."""

    factor: float
    kl: float
    error: float


@dataclass(frozen=True, eq=False)
class Chosen:
    """A dose that was chosen: `recipe` is the one asked about, times `factor`, and costs `kl` nats per token.

    `said` is the choice in one sentence, for people.
    """

    factor: float
    recipe: Recipe
    kl: float
    said: str


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
    prompts: Sequence[str] = NEUTRAL,
    *,
    tokens: int = TEXT_TOKENS,
    places: int = PLACES,
) -> list[Cost]:
    """The cost of the recipe at each factor, all in one batch with a row each.

    Raises `InputError` when there is nothing to measure, or when the recipe's scopes select no token of any text.
    """
    if not prompts or not factors:
        raise InputError("A dose needs at least one strength and one neutral text.")
    found = costs_of(model, [scaled(recipe, factor) for factor in factors], prompts, tokens=tokens, places=places)
    return [replace(cost, factor=factor) for cost, factor in zip(found, factors, strict=True)]


def costs_of(
    model: Model,
    recipes: Sequence[Recipe],
    prompts: Sequence[str] = NEUTRAL,
    *,
    tokens: int = TEXT_TOKENS,
    places: int = PLACES,
) -> list[Cost]:
    """The cost of each of several recipes, as they are (`factor` is 1)."""
    ids = [model.encode_prompt(text)[:tokens] for text in prompts]
    sums, counts = kl_by_text(model, recipes, ids, places)
    out = []
    for total, count in zip(sums, counts, strict=True):
        if not bool(count.any()):
            longest = max(map(len, ids))
            raise InputError(
                f"The cost of this recipe cannot be measured: its scope selects none of the tokens of the neutral "
                f"texts, of which the first {longest} are read."
            )
        mean = float(total.sum() / count.sum())
        n = int((count > 0).sum())
        spread = float(((total - mean * count).square().sum() * n / max(1, n - 1)).sqrt() / count.sum())
        out.append(Cost(1.0, mean, spread))
    return out


def factor_for_kl(
    model: Model, recipe: Recipe, kl: float, prompts: Sequence[str] = NEUTRAL, tolerance: float = TOLERANCE
) -> Cost:
    """The smallest factor above 0 at which the recipe costs `kl` nats per token, within `tolerance`, as measured.

    A few texts show roughly where the cost first passes the budget; there it is measured on all of them, between
    points that close in. The cost need not grow steadily: of several crossings it is the first of those that the
    rough look could see. Raises `InputError` when the cost never reaches the budget, or never falls to it.
    """
    if not finite(kl, "The KL to reach") > 0:
        raise InputError(f"The KL to reach must be above 0, not {kl:g}.")
    if scaled(recipe, 2.0) == recipe:
        raise InputError("The strengths of this recipe are all 0, so there is nothing to multiply.")
    rough = _rough_crossing(model, recipe, kl, prompts[:_FEW])
    known: list[Cost] = []
    wanted = [rough / 1.2, rough, rough * 1.2]
    for _ in range(_ROUNDS):
        known = sorted([*known, *costs(model, recipe, wanted, prompts)], key=lambda cost: cost.factor)
        best = min(known, key=lambda cost: abs(cost.kl - kl))
        if abs(best.kl / kl - 1) <= tolerance:
            return best
        wanted = [_crossing(known, kl) or _beyond(known, kl)]
    if best.kl < kl / 2 or best.kl > kl * 2:
        raise InputError(
            f"No strength of this recipe costs {kl:g} nats per token; the nearest, {best.factor:g} times what was "
            f"given, costs {best.kl:.3g}."
        )
    return best


def _rough_crossing(model: Model, recipe: Recipe, kl: float, prompts: Sequence[str]) -> float:
    """About where the cost first passes `kl`, seen on a few short texts; grids of powers of 2, up or down."""
    known: list[Cost] = []
    wanted = _ROUGH
    while True:
        new = costs(model, recipe, wanted, prompts, tokens=_FEW_TOKENS, places=_FEW_PLACES)
        known = sorted([*known, *new], key=lambda cost: cost.factor)
        found = _crossing(known, kl)
        if found is not None:
            return found
        first, last = known[0], known[-1]
        flat = abs(new[-1].kl - new[0].kl) < 0.02 * new[0].kl and new[0].kl > 1e-4
        if last.kl < kl:
            if flat or last.factor > _WIDEST:
                raise InputError(
                    f"No strength of this recipe costs {kl:g} nats per token: at {last.factor:g} times what was given "
                    f"it costs {last.kl:.3g}, and more strength adds nothing."
                )
            wanted = tuple(last.factor * 2.0**k for k in range(1, 7))
        else:
            if flat or first.factor < 1 / _WIDEST:
                raise InputError(
                    f"Every strength of this recipe costs more than {kl:g} nats per token: at {first.factor:g} times "
                    f"what was given it still costs {first.kl:.3g}."
                )
            wanted = tuple(first.factor * 2.0**k for k in range(-6, 0))


def _crossing(known: Sequence[Cost], kl: float) -> float | None:
    """Where the line between two neighbours first passes `kl`, on logarithmic scales; None when it does not."""
    for low, high in pairwise(known):
        if low.kl < kl <= high.kl:
            if low.kl <= 0:
                return (low.factor + high.factor) / 2
            share = math.log(kl / low.kl) / math.log(high.kl / low.kl)
            return low.factor * (high.factor / low.factor) ** share
    return None


def _beyond(known: Sequence[Cost], kl: float) -> float:
    """A little beyond the points that are known, where the cost may pass `kl` if it goes with the square."""
    edge = known[-1] if known[-1].kl < kl else known[0]
    step = math.sqrt(kl / max(edge.kl, 1e-12))
    return edge.factor * min(max(step**1.1, 1 / 4), 4.0)


def choose(
    model: Model,
    recipe: Recipe,
    dose: Dose | str,
    *,
    prompts: Sequence[str] = NEUTRAL,
) -> Chosen:
    """The recipe at the strength that `dose` asks for: `"kl=0.5"`, or a `Dose`."""
    wanted = Dose.of(dose)
    if wanted.measure != "kl" or wanted.budget is None:
        raise InputError(f"Only a dose kl=NUMBER can be chosen here, not {wanted}.")
    cost = factor_for_kl(model, recipe, wanted.budget, prompts)
    chosen = scaled(recipe, cost.factor)
    said = f"{chosen!r} costs {cost.kl:.2f} nats per token (standard error {cost.error:.2f})."
    return Chosen(cost.factor, chosen, cost.kl, said)
