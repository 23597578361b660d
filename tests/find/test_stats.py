"""Statistics against SciPy and scikit-learn, column by column."""

from __future__ import annotations

import numpy as np
from scipy.stats import false_discovery_control, mannwhitneyu
from sklearn.metrics import roc_auc_score

from trimtab.find.stats import benjamini_hochberg, effect_size, separation


def _columns() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    positive = np.maximum(rng.normal(0.3, 1, (40, 6)), 0)  # many ties at 0, as with features
    negative = np.maximum(rng.normal(0.0, 1, (30, 6)), 0)
    positive[:, 5] = negative[:, 5].mean() * 0
    negative[:, 5] = 0
    return positive, negative


def test_auc_and_p_agree_with_scipy_and_scikit_learn() -> None:
    positive, negative = _columns()
    found = separation(positive, negative)
    labels = np.repeat([1, 0], [40, 30])
    for column in range(5):
        values = np.concatenate([positive[:, column], negative[:, column]])
        assert np.isclose(found.auc[column], roc_auc_score(labels, values))
        test = mannwhitneyu(positive[:, column], negative[:, column], method="asymptotic", use_continuity=True)
        assert np.isclose(found.p[column], test.pvalue)


def test_a_column_without_variation_says_nothing() -> None:
    found = separation(*_columns())
    assert found.auc[5] == 0.5
    assert found.p[5] == 1.0
    assert found.effect[5] == 0.0


def test_effect_size_is_cohens_d_and_bounded() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(1, 2, (50, 1)), rng.normal(0, 2, (40, 1))
    pooled = np.sqrt((49 * a.var(ddof=1) + 39 * b.var(ddof=1)) / 88)
    assert np.isclose(effect_size(a, b)[0], (a.mean() - b.mean()) / pooled)
    assert effect_size(np.full((5, 1), 2.0), np.zeros((5, 1)))[0] == 100.0


def test_q_values_agree_with_scipy() -> None:
    p = np.random.default_rng(2).uniform(0, 1, 200) ** 3
    assert np.allclose(benjamini_hochberg(p), false_discovery_control(p))
