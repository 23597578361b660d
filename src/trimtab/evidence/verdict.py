"""The verdict in words, by rules that are stated here and nowhere else.

In this order, for the recipe's target (the feature, or the weighted sum of several), `wanted` being up or down:

1. "not measured"               the recipe's or the unsteered samples have no score.
2. "reversed"                   the firing rate went the other way (the interval of the paired difference excludes 0).
3. "no effect"                  the interval of the difference includes 0, or does so once it is corrected for the
                                recipes verified together (Holm), or the recipe does no better than one of the null
                                controls that were run: random direction, random feature of like density, selection with
                                shuffled labels, each at the recipe's KL.
4. "weak effect"                a real change, but less than `MIN_RATIO` times (from 0: fires on less than
                                `MIN_FIRING` of the tokens).
5. "only with degenerate text"  log-likelihood more than `MAX_COST` nats per token worse than the unsteered samples',
                                or more than `MAX_REPETITION` of the 4-grams repeated.
6. "works but not selectively"  the feature is not among the first `SELECTIVE_SHARE` of all features by its standardised
                                change (of a weighted sum: none of its features is).
7. "works"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab.evidence import plan
from trimtab.evidence.stats import Interval
from trimtab.evidence.values import RECIPE, UNSTEERED, Arm, Contrast, Selectivity, Target, Verdict

MAX_P = 0.05
"""The corrected p-value of the change must be below this; the intervals are at 95 % to match."""

MIN_RATIO = 5.0
"""The firing rate must be at least this many times the unsteered one (or, to lower it, at most one part in this)."""

MIN_FIRING = 0.01
"""Where the feature never fires unsteered there is no ratio; it must fire on at least this share of the tokens."""

MAX_COST = 1.0
"""Nats per generated token, under the unsteered model, that steered text may be worse than its unsteered pair."""

MAX_REPETITION = 0.5
"""Share of 4-grams that may have occurred before in the same text, on average."""

SELECTIVE_SHARE = 0.01
"""The target must be within this share of all features, ranked by change."""

SELECTIVE_FIRST = 3
"""In a small SAE, where the share above is fewer than this many features, being among these is enough."""


def judge(
    target: Target, arms: Sequence[Arm], contrasts: Sequence[Contrast], selectivity: Sequence[Selectivity]
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict on `target` and the reasons for it, each a clause that can stand in a sentence."""
    by_name = {arm.name: arm.scores for arm in arms}
    gaps = {(c.arm, c.against): c for c in contrasts}
    key = f"firing:{target.name}"
    change = gaps[RECIPE, UNSTEERED].scores[key]
    steered, plain = by_name[RECIPE][key].mean, by_name[UNSTEERED][key].mean
    if change.mean is None or steered is None or plain is None:
        return "not measured", ("no generated token could be scored",)
    reasons = [
        f"{target.name} fires on {steered:.1%} of generated tokens, {plain:.1%} unsteered{_times(steered, plain)}"
    ]
    _mention_prompts(gaps[RECIPE, UNSTEERED], change, key, reasons)
    nulls = [gaps[RECIPE, name] for name in plan.NULLS if (RECIPE, name) in gaps]
    effect = _effect(target, change, gaps[RECIPE, UNSTEERED].corrected.get(key), nulls, reasons)
    if effect is not None:
        return effect, tuple(reasons)
    if _is_weak(target, steered, plain):
        reasons.append(f"less than the {MIN_RATIO:g} times that the rule asks for")
        return "weak effect", tuple(reasons)
    degenerate = _degenerate(gaps[RECIPE, UNSTEERED], by_name[RECIPE], reasons)
    scattered = _scattered(target, selectivity, reasons)
    if degenerate:
        return "only with degenerate text", tuple(reasons)
    return ("works but not selectively" if scattered else "works"), tuple(reasons)


def _times(steered: float, plain: float) -> str:
    if plain == 0:
        return " (from 0)" if steered > 0 else ""
    return f" ({steered / plain:.1f} times)"


def _mention_prompts(contrast: Contrast, change: Interval, key: str, reasons: list[str]) -> None:
    """How many prompts went the wrong way, and whether there were enough texts to say anything of other prompts."""
    share = contrast.wrong_way.get(key)
    if share is not None and change.clusters > 1:
        reasons.append(f"{round(share * change.clusters)} of {change.clusters} prompts moved the wrong way")
    if change.over == "samples":
        given = "one prompt cannot" if change.clusters == 1 else f"{change.clusters} prompts cannot"
        reasons.append(f"{given} speak for others, so the intervals hold for what was given")
    if change.thin:
        reasons.append("so few texts differ that the interval is too narrow to trust")


def _effect(
    target: Target, change: Interval, corrected: float | None, nulls: Sequence[Contrast], reasons: list[str]
) -> Verdict | None:
    up, down = (change.above_zero, change.below_zero)[:: target.wanted]
    if not (up or down):
        reasons.append("the interval of the difference includes 0")
        return "no effect"
    if corrected is not None and corrected >= MAX_P:
        reasons.append(f"not after correction for the recipes verified together (p = {corrected:.2g})")
        return "no effect"
    if down:
        reasons.append("the change goes the wrong way")
        return "reversed"
    for null in nulls:
        gap = null.scores[f"firing:{target.name}"]
        if not (gap.above_zero if target.wanted > 0 else gap.below_zero):
            reasons.append(f"not clearly more than the control “{plan.LABELS[null.against]}” at the same KL")
            return "no effect"
    return None


def _is_weak(target: Target, steered: float, plain: float) -> bool:
    if target.wanted < 0:
        return steered * MIN_RATIO > plain
    return steered < MIN_FIRING if plain == 0 else steered < MIN_RATIO * plain


def _degenerate(contrast: Contrast, steered: dict[str, Interval], reasons: list[str]) -> bool:
    gap, repeated = contrast.scores["log_likelihood"].mean, steered["repetition"].mean
    bad = False
    if gap is not None:
        reasons.append(f"its text is {abs(gap):.2f} nats per token {'worse' if gap < 0 else 'better'} than unsteered")
        if -gap > MAX_COST:
            reasons.append(f"more than the {MAX_COST:g} that the rule allows")
            bad = True
    if repeated is not None and repeated > MAX_REPETITION:
        reasons.append(f"{repeated:.0%} of its 4-grams are repeated")
        bad = True
    return bad


def _scattered(target: Target, selectivity: Sequence[Selectivity], reasons: list[str]) -> bool:
    mine = [s for s in selectivity if s.feature in target.features]
    if not mine:
        return False
    best = min(mine, key=lambda s: s.rank)
    reasons.append(f"it is number {best.rank} of {best.of} features by standardised change")
    return best.rank > max(SELECTIVE_FIRST, math.floor(best.of * SELECTIVE_SHARE))
