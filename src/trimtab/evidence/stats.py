"""Means with honest intervals, and simple measures of text. Pure numpy; no model, no torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from trimtab.errors import InputError
from trimtab.spec import Spec

Floats = npt.NDArray[np.float64]

MIN_CLUSTERS = 5
"""With fewer prompts than this, no interval can speak for other prompts: samples within the given prompts are
resampled instead, and the interval says so (`over="samples"`)."""

DRAWS = 2000


class Interval(Spec):
    """A mean and its interval. `low` and `high` are None where one sample (or none) gives no interval.

    `n` counts the samples that have a score, `unscored` those without one, which are left out, never taken as zero.
    `over` names what was resampled: "prompts" speaks for other prompts too, "samples" only for those given.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0
    clusters: int
    level: float
    over: Literal["prompts", "samples"]

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

    Samples of one prompt are alike, so whole prompts are resampled. Bootstrap percentiles are too narrow for few
    units; the distances from the mean are stretched by sqrt(g / (g - 1)) * t / z, the correction of Hesterberg
    (2015, "What Teachers Should Know About the Bootstrap") made linear; `bounds` are values that a mean cannot leave.
    None and NaN are unscored: left out.
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
    n, mean = int(keep.sum()), float(scored[keep].mean()) if keep.any() else None
    units = len(groups) if over == "prompts" else n - len(groups) + 1
    if mean is None or units < 2:
        return Interval(
            mean=mean, low=None, high=None, n=n, unscored=len(scored) - n, clusters=len(groups), level=level, over=over
        )
    rng = np.random.default_rng(seed)
    means = _resample_clusters(groups, draws, rng) if over == "prompts" else _resample_within(groups, draws, rng)
    stretch = float(np.sqrt(units / (units - 1))) * t_quantile((1 + level) / 2, units - 1) / _z((1 + level) / 2)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    least, most = bounds or (-np.inf, np.inf)
    return Interval(
        mean=mean,
        low=max(least, mean + (float(low) - mean) * stretch),
        high=min(most, mean + (float(high) - mean) * stretch),
        n=n,
        unscored=len(scored) - n,
        clusters=len(groups),
        level=level,
        over=over,
    )


def paired(
    values: Sequence[float | None], others: Sequence[float | None], clusters: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """The mean of `values - others`, pair by pair; a pair with an unscored half is left out."""
    if len(values) != len(others):
        raise InputError(f"{len(values)} values cannot be paired with {len(others)}.")
    gaps = [None if a is None or b is None else a - b for a, b in zip(values, others, strict=True)]
    return interval(gaps, clusters, seed=seed)


@lru_cache(maxsize=256)
def t_quantile(p: float, df: int) -> float:
    """The p-quantile of Student's t. With t = sqrt(df) * tan(a) its density is cos(a) ** (df - 1), summed on a grid."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 40001)
    density = np.cos(angle) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return float(np.sqrt(df) * np.tan(np.interp(p, mass / mass[-1], angle)))


def distinct(tokens: Sequence[int], n: int = 2) -> float | None:
    """Share of the n-grams of `tokens` that are different from each other (Li et al. 2016); None if there are none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(tokens: Sequence[int], n: int = 4) -> float | None:
    """Share of the n-grams that occurred before in the same text (Welleck et al. 2020); None when there are none."""
    unlike = distinct(tokens, n)
    return None if unlike is None else 1 - unlike


def _z(p: float) -> float:
    return t_quantile(p, 1000)


def _groups(values: Floats, clusters: Sequence[Hashable]) -> list[Floats]:
    members: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        members.setdefault(cluster, []).append(float(value))
    return [np.array(m) for m in members.values()]


def _resample_clusters(groups: list[Floats], draws: int, rng: np.random.Generator) -> Floats:
    """Means of `draws` resamples of whole groups; a group counts by its size."""
    sums, sizes = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    picks = rng.integers(len(groups), size=(draws, len(groups)))
    return np.asarray(sums[picks].sum(1) / sizes[picks].sum(1), dtype=np.float64)


def _resample_within(groups: list[Floats], draws: int, rng: np.random.Generator) -> Floats:
    """Means of `draws` resamples in which each group keeps its size."""
    total = np.zeros(draws)
    for group in groups:
        total += group[rng.integers(len(group), size=(draws, len(group)))].sum(1)
    return total / sum(len(g) for g in groups)
