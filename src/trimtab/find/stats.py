"""Statistics of two groups, column by column: rank separation, effect size, false discovery rate. NumPy only."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Separation(NamedTuple):
    """Per column: AUC (0.5 is none), its two-sided p-value, and Cohen's d with the pooled deviation."""

    auc: Array
    p: Array
    effect: Array


def separation(positive: NDArray[Any], negative: NDArray[Any]) -> Separation:
    """How well each column tells positive [n, c] from negative [m, c] rows.

    The p-value is of the Mann-Whitney U test by its normal approximation with tie and continuity correction, which
    matters here because most features are exactly 0 on most texts.
    """
    n, m = len(positive), len(negative)
    both = np.concatenate([positive, negative]).astype(np.float64)
    ranks, ties = _ranks(both)
    u = ranks[:n].sum(0) - n * (n + 1) / 2
    total = n + m
    variance = n * m / 12 * ((total + 1) - ties / (total * (total - 1)))
    distance = np.maximum(np.abs(u - n * m / 2) - 0.5, 0.0)
    z = np.divide(distance, np.sqrt(np.maximum(variance, 0)), out=np.zeros_like(u), where=variance > 1e-12)
    return Separation(u / (n * m), _two_sided(z), effect_size(positive, negative))


def effect_size(positive: NDArray[Any], negative: NDArray[Any]) -> Array:
    """Cohen's d per column: difference of means over the pooled standard deviation; 0 where the means agree.

    Where a column hardly varies within its groups, d is cut off at 100, which already means full separation.
    """
    pos, neg = positive.astype(np.float64), negative.astype(np.float64)
    n, m = len(pos), len(neg)
    spread = pos.var(0) * n + neg.var(0) * m
    difference = pos.mean(0) - neg.mean(0)
    pooled = np.maximum(np.sqrt(spread / max(n + m - 2, 1)), np.abs(difference) / 100)
    result: Array = np.divide(difference, pooled, out=np.zeros(pos.shape[1]), where=pooled > 0)
    return result


def benjamini_hochberg(p: Array) -> Array:
    """q-values: the smallest false discovery rate at which each p-value is called (Benjamini and Hochberg 1995)."""
    n = len(p)
    order = np.argsort(p)
    scaled = p[order] * n / np.arange(1, n + 1)
    q = np.empty(n)
    q[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return q


def bootstrap_mean(values: Array, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of `values` [n] with a 95 % interval by resampling: (mean, low, high)."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _ranks(values: Array) -> tuple[Array, Array]:
    """Average ranks (from 1) of each column, and the sum of t^3 - t over its groups of t ties."""
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, 0)
    rows = len(values)
    place = np.arange(rows)[:, None]
    new = np.ones_like(ordered, dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
    ends = np.ones_like(new)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, place, rows - 1)[::-1], axis=0)[::-1]
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1.0, 0)
    size = (last - first + 1).astype(np.float64)
    ties: Array = ((size**3 - size) * new).sum(0)
    return ranks, ties


def _two_sided(z: Array) -> Array:
    from scipy.special import erfc

    result: Array = erfc(z / np.sqrt(2))
    return result
