from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from trimtab.testing.studies import SCORES, planted_verdicts, verified


@pytest.mark.parametrize("kind", list(SCORES))
def test_the_stated_mean_is_the_mean_of_what_is_drawn(kind: str) -> None:
    values, own = SCORES[kind].draw(200_000, 2, np.random.default_rng(0))
    assert values.mean() == pytest.approx(SCORES[kind].mean, rel=0.03)
    assert own.mean() == pytest.approx(SCORES[kind].mean, rel=0.02)


def test_planted_truth_is_told_from_what_only_looks_like_it() -> None:
    """Three worlds here; bench/coverage.py has 200."""
    right: Counter[str] = Counter()
    for seed in range(3):
        for name, verdict in planted_verdicts(seed).items():
            right[name] += verified(verdict) == (name == "writer")
    assert right == {"writer": 3, "reader": 3, "random": 3, "shuffled": 3}
