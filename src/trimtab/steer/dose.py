"""The dose: how strongly to apply a recipe, chosen from what its strength was measured to do.

    chosen = choose(model, recipe, "kl=0.5")
    generate(model, "Once upon a time", chosen.recipe)

    curve = measure_dose(model, recipe, sae=sae)   # cost, perplexity, repetition and response by strength

docs/dose.md says how each number is defined, and how well a dose holds on texts that it was not chosen on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.spec import Dose
from trimtab.steer.dose_curve import Chosen, DoseCurve, DosePoint
from trimtab.steer.dose_texts import Progress, Texts, write_and_read
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.own import own_texts
from trimtab.steer.strength import Cost, costs, crossing, factor_for_kl, rough_costs, scaled

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

LADDER = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""The costs, in nats per token, at about which a curve has its points."""

TEXTS = 16
"""Texts written at each strength: the beginnings of the first texts, continued."""


def measure_dose(
    model: Model,
    recipe: Recipe,
    factors: Sequence[float] | None = None,
    prompts: Sequence[str] | None = None,
    *,
    sae: SAE | None = None,
    texts: int = TEXTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> DoseCurve:
    """What the recipe costs and does at each of `factors` (None: on both sides of 0, at about the costs of `LADDER`).

    Costs are measured on all `prompts` (None: texts of the model's own, `own_texts`), one row a factor in each batch.
    `texts` of their beginnings are then continued at every factor (0: none), read by the unsteered model, and with
    `sae` for what the recipe's features do in them.
    Raises `InputError` for a recipe without a strength, see `scaled`, and for scopes that select no token.
    """
    if factors is None:
        factors = sorted(f for sign in _signs(recipe) for f in ladder(model, recipe, prompts, sign))
    else:
        factors = sorted(dict.fromkeys(float(f) for f in factors))
    if progress is not None:
        progress("measuring", 0, len(factors))
    cost = costs(model, recipe, factors, prompts)
    if progress is not None:
        progress("measuring", len(factors), len(factors))
    if not texts:
        return DoseCurve(recipe, tuple(DosePoint(c.factor, c.kl, c.error) for c in cost), None)
    features = list(recipe.reads(sae)) if sae is not None else []
    recipes = [None, *(scaled(recipe, factor) for factor in factors)]
    begun = (NEUTRAL if prompts is None else prompts)[:texts]
    plain, *steered = write_and_read(model, recipes, begun, sae, features, seed=seed, progress=progress)
    return DoseCurve(recipe, tuple(_point(c, t, plain) for c, t in zip(cost, steered, strict=True)), plain)


def ladder(
    model: Model, recipe: Recipe, prompts: Sequence[str] | None = None, sign: int = 1, budgets: Sequence[float] = LADDER
) -> list[float]:
    """The factors of one sign at which the recipe costs about `budgets`; those that it cannot cost are left out."""
    read = own_texts(model) if prompts is None else prompts
    seen = rough_costs(model, scaled(recipe, sign), min(budgets), max(budgets), read)
    found = [crossing(seen, kl) for kl in budgets]
    return [sign * factor for factor in dict.fromkeys(found) if factor is not None] or [float(sign)]


def choose(
    model: Model,
    recipe: Recipe,
    dose: Dose | str,
    prompts: Sequence[str] | None = None,
    *,
    sae: SAE | None = None,
    texts: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Chosen:
    """The recipe at the strength that `dose` asks for: `"kl=0.5"`, `"ppl=1.2"` or `"auto"`, or a `Dose`.

    Costs are measured on `prompts` (None: texts of the model's own, `own_texts`).
    The recipe's own strengths matter only by their proportions and signs. `kl` needs no texts; with `texts` above 0
    that many are written at each strength all the same, and the safe range is known. `ppl` and `auto` write at least
    `TEXTS`.
    `auto` takes the end of the safe range, as far as the curve goes; where nothing is safe, its weakest strength.
    Raises `InputError` for a recipe without a strength, and for a budget that no strength of it meets.
    """
    wanted = Dose.of(dose)
    point = None
    if wanted.measure == "kl" and wanted.budget is not None:
        cost = factor_for_kl(model, recipe, wanted.budget, prompts)
        point = DosePoint(cost.factor, cost.kl, cost.error)
        if not texts:
            return _chosen(wanted, recipe, point, None)
    factors = ladder(model, recipe, prompts)
    most = texts if point else max(texts, TEXTS)
    curve = measure_dose(model, recipe, factors, prompts, sae=sae, texts=most, seed=seed, progress=progress)
    if wanted.measure == "ppl" and wanted.budget is not None:
        guess = _ppl_crossing(curve, wanted.budget)
        around = [guess / 1.2, guess, guess * 1.2]
        every = len(NEUTRAL if prompts is None else prompts)
        near = measure_dose(model, recipe, around, prompts, sae=sae, texts=every, seed=seed, progress=progress).points
        point = min(near, key=lambda one: abs(math.log((one.perplexity or math.inf) / (wanted.budget or 1))))
    return _chosen(wanted, recipe, point or curve.at(curve.safe_range[1] or curve.points[0].factor), curve)


def _ppl_crossing(curve: DoseCurve, ratio: float) -> float:
    """The factor at which the perplexity first passes `ratio` times that of unsteered text."""
    seen = [Cost(p.factor, math.log(p.perplexity), 0.0) for p in curve.points if p.perplexity is not None]
    if seen[0].kl >= math.log(ratio):
        return seen[0].factor * math.log(ratio) / seen[0].kl
    found = crossing(seen, math.log(ratio))
    if found is None:
        most = max(seen, key=lambda one: one.kl)
        raise InputError(
            f"No strength of this recipe makes text {ratio:g} times as perplexing: the most was "
            f"{math.exp(most.kl):.3g} times, at {most.factor:.3g} times what was given."
        )
    return found


def _chosen(wanted: Dose, recipe: Recipe, point: DosePoint, curve: DoseCurve | None) -> Chosen:
    chosen = scaled(recipe, point.factor)
    parts = [f"{chosen!r}, for the dose {wanted}: KL {point.kl:.2f} nats per token"]
    if point.perplexity is not None:
        parts.append(f", perplexity {point.perplexity:.2f} times that of unsteered text")
    if curve is not None:
        parts.append(". " + curve.in_words())
    return Chosen(point.factor, chosen, point.kl, "".join(parts) + ("" if curve else "."), curve)


def _point(cost: Cost, steered: Texts, plain: Texts) -> DosePoint:
    ratio = math.exp(min(steered.nats - plain.nats, 50.0))
    return DosePoint(cost.factor, cost.kl, cost.error, ratio, steered.repetition, steered.response)


def _signs(recipe: Recipe) -> tuple[int, ...]:
    """A ceiling cannot be turned round, and a floor below 0 does nothing."""
    return (1,) if any(edit.spec.op in ("min", "max") for edit in recipe.edits) else (-1, 1)
