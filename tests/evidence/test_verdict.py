from __future__ import annotations

import pytest

from trimtab.evidence.stats import Interval
from trimtab.evidence.values import Arm, Contrast, Selectivity, Target
from trimtab.evidence.verdict import judge


def around(mean: float | None, half: float = 0.01) -> Interval:
    low, high = (None, None) if mean is None else (mean - half, mean + half)
    return Interval(mean=mean, low=low, high=high, n=20, clusters=5, level=0.95, over="prompts")


def verdict(
    steered: float | None = 0.3,
    plain: float | None = 0.01,
    *,
    wanted: int = 1,
    cost: float = 0.3,
    repetition: float = 0.1,
    rank: int = 1,
    random: float | None = 0.01,
    half: float = 0.01,
) -> str:
    target = Target(name="feature 1", features=(1,), weights=(1.0,), wanted=wanted)  # type: ignore[arg-type]
    key = "firing:feature 1"

    def arm(name: str, rate: float | None) -> Arm:
        scores = {key: around(rate), "log_likelihood": around(-3.0), "repetition": around(repetition)}
        return Arm(name=name, label=name, scores=scores)

    def gap(one: str, other: str, a: float | None, b: float | None) -> Contrast:
        change = around(None if a is None or b is None else a - b, half)
        return Contrast(arm=one, against=other, scores={key: change, "log_likelihood": around(-cost)}, ratios={})

    contrasts = [gap("recipe", "unsteered", steered, plain)]
    if random is not None:
        contrasts.append(gap("recipe", "random", steered, random))
    ranks = [
        Selectivity(
            target="feature 1", feature=1, rank=rank, rank_by_change=1, of=1000, change=1.0, standardised=1.0, top=()
        )
    ]
    return judge(target, [arm("unsteered", plain), arm("recipe", steered)], contrasts, ranks)[0]


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        ("works", {}),
        ("works", {"random": None}),
        ("works", {"steered": 0.05, "plain": 0.0, "random": 0.0}),
        ("works", {"steered": 0.0, "plain": 0.3, "random": 0.3, "wanted": -1}),
        ("weak effect", {"steered": 0.1, "plain": 0.03}),
        ("weak effect", {"steered": 0.1, "plain": 0.3, "random": 0.3, "wanted": -1}),
        ("weak effect", {"steered": 0.009, "plain": 0.0, "random": 0.0, "half": 0.001}),
        ("no effect", {"steered": 0.015}),
        ("no effect", {"random": 0.3}),
        ("reversed", {"steered": 0.0, "plain": 0.3}),
        ("reversed", {"wanted": -1}),
        ("only with degenerate text", {"cost": 1.01}),
        ("only with degenerate text", {"repetition": 0.51}),
        ("only with degenerate text", {"cost": 2.0, "rank": 500}),
        ("works", {"cost": 0.99, "repetition": 0.49}),
        ("works but not selectively", {"rank": 11}),
        ("works", {"rank": 10}),
        ("not measured", {"steered": None}),
    ],
)
def test_each_rule(expected: str, case: dict[str, float]) -> None:
    assert verdict(**case) == expected  # type: ignore[arg-type]
