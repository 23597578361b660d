"""Means with honest intervals, and simple measures of text. Pure numpy and scipy; no model, no torch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from trimtab.errors import InputError
from trimtab.lm.ngrams import distinct as distinct
from trimtab.lm.ngrams import repetition as repetition
from trimtab.spec import Spec

Floats = npt.NDArray[np.float64]

MIN_CLUSTERS = 5
"""With fewer prompts than this, no interval can speak for other prompts: samples within the given prompts are
resampled instead, and the interval says so (`over="samples"`)."""

MIN_UNLIKE = 5
"""Where fewer samples than this differ from the commonest value (mostly 0), simulations find intervals too narrow."""

FURTHEST, WIDEST = 1.5, 2.0
"""As multiples of Student's t: bootstrap quantiles count up to the first, and an interval reaches at most as far as the
second. Simulations (bench/coverage.py) found that beyond these, intervals grow without covering more."""

DRAWS = 2000


class Interval(Spec):
    """A mean and its interval. `low` and `high` are None where one sample (or none) gives no interval.

    Every prompt counts the same. `p`: two-sided, of the mean being 0 (None where there is no interval).
    `n` counts the samples that have a score, `unscored` those without one, which are left out, never taken as zero.
    `over` names what was resampled: "prompts" speaks for other prompts too, "samples" only for those given.
    `thin`: fewer than `MIN_UNLIKE` samples differ from the commonest value, so that the interval cannot be trusted.
    """

    mean: float | None
    low: float | None
    high: float | None
    p: float | None = None
    n: int
    unscored: int = 0
    clusters: int
    level: float
    over: Literal["prompts", "samples"]
    thin: bool = False

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below 0."""
        return self.high is not None and self.high < 0


def interval(
    values: Sequence[float | None] | Floats,
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """The mean of `values` with a bootstrap interval clustered by `clusters` (the prompt of each value).

    Samples of one prompt are alike, so whole prompts are resampled; with fewer than `MIN_CLUSTERS`, samples within each
    prompt. Scores of text are skewed and have many zeros, where percentiles and Student's t cover too rarely. So the
    statistic that is resampled is Student's t after Hall's (1992, "On the removal of skewness by transformation") cubic
    correction for skewness. A bootstrap of few units is erratic, so its quantiles are taken between those of Student's
    t and `FURTHEST` times those. `bounds` are values that a mean cannot leave. None and NaN are left out.
    """
    if len(values) != len(clusters):
        raise InputError(f"{len(values)} values but {len(clusters)} clusters: each value needs its cluster.")
    if not 0 < level < 1:
        raise InputError(f"The level of an interval lies between 0 and 1, not {level}.")
    scored = np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    if np.isinf(scored).any():
        raise InputError(f"Value {int(np.isinf(scored).argmax())} is infinite: a mean over it says nothing.")
    keep = ~np.isnan(scored)
    groups = _groups(scored[keep], [c for c, k in zip(clusters, keep, strict=True) if k])
    over: Literal["prompts", "samples"] = "prompts" if len(groups) >= MIN_CLUSTERS else "samples"
    strata = [np.array([g.mean() for g in groups])] if over == "prompts" else groups
    mean = float(np.mean([s.mean() for s in strata])) if strata else None
    low = high = p = None
    freedom = sum(len(s) - 1 for s in strata)
    if mean is not None and freedom >= 1:
        low, high, p = _bounds(strata, freedom, level, draws, seed)
        least, most = bounds or (-np.inf, np.inf)
        low, high = max(least, low), min(most, high)
    n = int(keep.sum())
    return Interval(
        mean=mean, low=low, high=high, p=p, n=n, unscored=len(scored) - n, clusters=len(groups), level=level, over=over,
        thin=_unlike(scored[keep]) < MIN_UNLIKE,
    )  # fmt: skip


def paired(
    values: Sequence[float | None], others: Sequence[float | None], clusters: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """The mean of `values - others`, pair by pair; a pair with an unscored half is left out."""
    if len(values) != len(others):
        raise InputError(f"{len(values)} values cannot be paired with {len(others)}.")
    gaps = [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]
    return interval(gaps, clusters, seed=seed)


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """p-values corrected for there being several (Holm 1979); None stays None and counts as a test not made."""
    made = sorted((value, key) for key, value in p.items() if value is not None)
    out: dict[str, float | None] = dict.fromkeys(p)
    largest = 0.0
    for place, (value, key) in enumerate(made):
        largest = max(largest, min(1.0, value * (len(made) - place)))
        out[key] = largest
    return out


def _unlike(values: Floats) -> int:
    """How many values differ from the commonest one."""
    return len(values) - int(np.unique(values, return_counts=True)[1].max(initial=0))


def _groups(values: Floats, clusters: Sequence[Hashable]) -> list[Floats]:
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(float(value))
    return [np.array(m) for m in members.values()]


def _bounds(strata: list[Floats], freedom: int, level: float, draws: int, seed: int) -> tuple[float, float, float]:
    """Both ends of the interval of the mean of the strata's means, and its p-value."""
    mean, error, skew = (float(x) for x in _moments(strata))
    if error <= 1e-12 * abs(mean):
        return mean, mean, float(mean == 0)
    rng = np.random.default_rng(seed)
    drawn = _moments([s[rng.integers(len(s), size=(draws, len(s)))] for s in strata])
    usable = drawn[1] > 1e-9 * error  # a resample of equal values has no t
    t = (drawn[0][usable] - mean) / drawn[1][usable]
    t = np.sort(_straightened(t, drawn[2][usable]))
    tail = (1 - level) / 2
    edge = float(stdtrit(freedom, 1 - tail))
    first, last = np.quantile(t, [tail, 1 - tail]) if len(t) else (-edge, edge)
    top, bottom = np.clip(last, edge, FURTHEST * edge), np.clip(first, -FURTHEST * edge, -edge)
    reach = WIDEST * edge
    low, high = (mean - error * float(np.clip(_bent(float(q), skew), -reach, reach)) for q in (top, bottom))
    zero = float(_straightened(np.array(mean / error), np.array(skew)))
    beyond = (1 + (np.sum(t >= zero) if zero > 0 else np.sum(t <= zero))) / (1 + len(t))
    plain = abs(mean) / error / WIDEST
    least, most, widest = (float(stdtr(freedom, -t)) for t in (abs(zero), abs(zero) / FURTHEST, plain))
    return low, high, 2 * min(max(float(beyond), least), most, widest)


def _moments(strata: list[Floats]) -> tuple[Floats, Floats, Floats]:
    """Mean, standard error and skewness of the mean of the strata's means; values are in the last axis of each."""
    h = len(strata)
    mean, biased, variance, third = (np.zeros(strata[0].shape[:-1]) for _ in range(4))
    for s in strata:
        n, m = s.shape[-1], s.mean(-1)
        gap = s - m[..., None]
        square = (gap**2).sum(-1)
        mean += m / h
        biased += square / n**2 / h**2
        variance += square / (max(1, n - 1) * n) / h**2
        third += (gap**3).sum(-1) / n**3 / h**3
    skew = np.divide(third, biased**1.5, out=np.zeros_like(third), where=biased > 0)
    return mean, np.sqrt(variance), skew


def _straightened(t: Floats, skew: Floats) -> Floats:
    """Hall's transformation: t of a mean with this skewness, made nearly symmetric."""
    return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6


def _bent(x: float, skew: float) -> float:
    """The t that `_straightened` takes to x."""
    if abs(skew) < 1e-6:
        return x
    return float(3 / skew * (np.cbrt(1 + skew * (x - skew / 6)) - 1))
