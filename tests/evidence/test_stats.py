from __future__ import annotations

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import stats
from trimtab.testing.studies import SCORES, coverage


@pytest.mark.parametrize("kind", list(SCORES))
@pytest.mark.parametrize(("prompts", "samples"), [(3, 8), (5, 8), (10, 8)])
def test_intervals_cover_as_often_as_they_say(kind: str, prompts: int, samples: int) -> None:
    """Nominal 95 % covers 93 to 97 % of studies whose interval is not flagged; bench/coverage.py has the full size.

    With 400 studies the standard error is 1.1 points, so the bounds here are wider by two of them.
    """
    found = coverage(SCORES[kind], prompts, samples, runs=400, draws=300, seed=1)
    if found.trusted is not None and found.thin < 0.5:
        assert 0.93 - 0.022 <= found.trusted <= 0.97 + 0.022


def test_a_feature_seen_in_very_few_texts_is_flagged() -> None:
    clusters = [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8 + [4] * 8
    assert stats.interval([0.0] * 36 + [0.1] * 4, clusters).thin
    assert not stats.interval([0.0] * 35 + [0.1] * 5, clusters).thin
    assert not stats.interval([1.0] * 35 + [0.1] * 5, clusters).thin


def test_each_prompt_counts_the_same() -> None:
    found = stats.interval([1.0, 1.0, 1.0, 4.0], ["a", "a", "a", "b"])
    assert found.mean == 2.5


def test_symmetric_scores_have_the_interval_of_students_t() -> None:
    """Without skewness and where the bootstrap is no wider, what remains is mean +- t * s / sqrt(n)."""
    values = [-2.0, -1.0, 0.0, 1.0, 2.0] * 4
    found = stats.interval(values, list(range(20)))
    half = 2.093 * np.std(values, ddof=1) / np.sqrt(20)
    assert found.high is not None
    assert half * 0.999 <= found.high <= 1.1 * half


def test_skewed_scores_reach_further_on_the_side_of_their_tail() -> None:
    values = np.random.default_rng(0).exponential(size=30)
    found = stats.interval(values, list(range(30)))
    assert found.low is not None
    assert found.high is not None
    assert found.mean is not None
    assert found.high - found.mean > 1.3 * (found.mean - found.low)


def test_the_transformation_and_its_inverse() -> None:
    """Hall (1992): g(T) = T + aT^2/3 + a^2T^3/27 + a/6; for one sample a is the skewness over sqrt(n)."""
    for skew in (-0.8, 0.0, 0.3):
        for t in (-2.0, 0.0, 0.7):
            straight = float(stats._straightened(np.array(t), np.array(skew)))
            assert stats._bent(straight, skew) == pytest.approx(t, abs=1e-9)
    assert float(stats._straightened(np.array(1.0), np.array(0.6))) == pytest.approx(1 + 0.2 + 0.36 / 27 + 0.1)


def test_p_below_five_percent_exactly_where_the_interval_excludes_0() -> None:
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(6), 4).tolist()
    seen = set()
    for run in range(200):
        values = rng.gamma(1.0, size=24) * (rng.random(24) < 0.5) - rng.choice([0.1, 0.3, 0.6])
        found = stats.interval(values, clusters, draws=999, seed=run)
        assert found.p is not None
        apart = found.above_zero or found.below_zero
        seen.add(apart)
        assert (found.p < 0.05) == apart or abs(found.p - 0.05) < 0.003
    assert seen == {True, False}


def test_holm_by_hand() -> None:
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1; never smaller than the one before."""
    assert stats.holm({"a": 0.04, "b": 0.01, "c": 0.02, "d": None}) == {
        "a": pytest.approx(0.04), "b": pytest.approx(0.03), "c": pytest.approx(0.04), "d": None,
    }  # fmt: skip
    assert stats.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


def test_ignoring_the_prompts_would_cover_too_rarely() -> None:
    """The same data with every sample its own cluster: the reason for clustering."""
    rng = np.random.default_rng(0)
    hits = 0
    for run in range(300):
        values = np.repeat(rng.normal(size=10), 8) + rng.normal(size=80)
        found = stats.interval(values, list(range(80)), draws=500, seed=run)
        hits += found.low < 0 < found.high  # type: ignore[operator]
    assert hits / 300 < 0.85


def test_few_prompts_are_resampled_within_and_say_so() -> None:
    effects = np.repeat([0.0, 5.0, 10.0], 7)
    found = stats.interval(effects + np.random.default_rng(1).normal(size=21), [0] * 7 + [1] * 7 + [2] * 7)
    assert (found.over, found.clusters) == ("samples", 3)
    assert found.high is not None
    assert found.low is not None
    assert found.high - found.low < 2  # whole prompts would give more than 20


def test_unscored_is_left_out_and_not_zero() -> None:
    found = stats.interval([1.0, None, 3.0, float("nan")], ["a", "a", "b", "b"])
    assert found.mean == 2.0
    assert found.n == 2
    pair = stats.paired([1.0, None, 3.0], [0.0, 5.0, 0.0], ["a", "a", "b"])
    assert pair.mean == 2.0
    assert pair.n == 2


def test_no_score_at_all_gives_no_mean_and_one_gives_no_interval() -> None:
    nothing = stats.interval([None, None], [0, 1])
    assert nothing.mean is None
    assert nothing.low is None
    assert nothing.n == 0
    single = stats.interval([4.0], [0])
    assert single.mean == 4.0
    assert single.low is None
    assert not single.above_zero


def test_pairing_removes_what_the_pair_shares() -> None:
    rng = np.random.default_rng(2)
    base = rng.normal(scale=100, size=40)
    clusters = np.repeat(np.arange(10), 4).tolist()
    gap = stats.paired((base + 1 + rng.normal(scale=0.1, size=40)).tolist(), base.tolist(), clusters)
    assert gap.above_zero
    assert gap.high is not None
    assert gap.high < 1.2


def test_same_seed_same_interval() -> None:
    values, clusters = np.random.default_rng(0).normal(size=60), np.repeat(np.arange(12), 5).tolist()
    assert stats.interval(values, clusters, seed=3) == stats.interval(values, clusters, seed=3)
    assert stats.interval(values, clusters, seed=3) != stats.interval(values, clusters, seed=4)


@pytest.mark.parametrize("values", [[1.0], [float("inf"), 1.0]])
def test_bad_values_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError):
        stats.interval(values, [0, 1])


def test_distinct_and_repetition_by_hand() -> None:
    assert stats.distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert stats.repetition([7, 7, 7, 7, 7], 4) == pytest.approx(0.5)
    assert stats.repetition([1, 2, 3, 4, 5], 4) == 0
    assert stats.distinct([1], 2) is None
    assert stats.repetition([1, 2, 3], 4) is None
