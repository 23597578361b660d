from __future__ import annotations

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.evidence import stats


@pytest.mark.parametrize(("df", "expected"), [(1, 12.706), (2, 4.303), (9, 2.262), (30, 2.042), (1000, 1.962)])
def test_t_quantile_matches_printed_tables(df: int, expected: float) -> None:
    assert stats.t_quantile(0.975, df) == pytest.approx(expected, abs=2e-3)
    assert stats.t_quantile(0.025, df) == pytest.approx(-expected, abs=2e-3)


@pytest.mark.parametrize(("prompts", "samples", "shared"), [(5, 8, 1.0), (10, 8, 1.0), (10, 4, 0.3), (30, 2, 1.0)])
def test_clustered_interval_covers_as_often_as_it_says(prompts: int, samples: int, shared: float) -> None:
    """Nominal 95 % must cover the truth in 93 to 97 % of simulated studies with a per-prompt effect."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(prompts), samples).tolist()
    hits = 0
    runs = 1000
    for run in range(runs):
        values = 1.0 + shared * np.repeat(rng.normal(size=prompts), samples) + rng.normal(size=prompts * samples)
        found = stats.interval(values, clusters, draws=500, seed=run)
        hits += found.low < 1.0 < found.high  # type: ignore[operator]
    assert 0.93 <= hits / runs <= 0.97


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
    rng = np.random.default_rng(1)
    hits = 0
    for run in range(600):
        effects = np.repeat([0.0, 5.0, 10.0], 7)
        found = stats.interval(effects + rng.normal(size=21), [0] * 7 + [1] * 7 + [2] * 7, draws=500, seed=run)
        hits += found.low < 5.0 < found.high  # type: ignore[operator]
        assert found.over == "samples"
        assert found.clusters == 3
    assert 0.93 <= hits / 600 <= 0.97


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
