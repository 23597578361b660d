"""How well a few features read a contrast: a logistic probe on them beside one on the whole residual.

Features that separate *together* are not those that separate best one by one, which mostly say the same thing. So they
are chosen together, as the features that a logistic regression with an absolute-value penalty keeps first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trimtab.errors import InputError
from trimtab.find.contrast import Activations
from trimtab.find.regress import logistic
from trimtab.find.stats import Array, separation

MIN_TEXTS = 4
_STEP = 1.2


class Probe(NamedTuple):
    """What a probe says of held-out texts: its AUC, and the score of every text on either side."""

    auc: float
    positive: Array
    negative: Array


def separating(train: Activations, limit: int = 32, max_density: float = 1.0) -> list[int]:
    """At most `limit` features that together tell the sides of `train` apart, of both signs, the heaviest first.

    The penalty of an L1 logistic regression (Tibshirani 1996) on standardised activations is lowered until `limit`
    weights are not 0, and the largest of those are taken. Features that fire on fewer than 4 texts, or on more than
    `max_density` of all tokens, are left out.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import l1_min_c

    if limit < 1:
        raise InputError(f"At least one feature must be allowed, not {limit}.")
    texts = sum(np.asarray((side.latents > 0).sum(0)).ravel() for side in (train.positive, train.negative))
    columns = np.flatnonzero((texts >= MIN_TEXTS) & (train.density.numpy() <= max_density))
    if not len(columns):
        return []
    sides = [side.latents[:, columns].toarray().astype(np.float64) for side in (train.positive, train.negative)]
    x, y = np.concatenate(sides), np.repeat([1, 0], [len(side) for side in sides])
    z = (x - x.mean(0)) / np.where(x.std(0) > 1e-12, x.std(0), 1.0)
    inverse, weights = float(l1_min_c(z, y, loss="log")), np.zeros(len(columns))
    while np.count_nonzero(weights) < limit and inverse < 1e3:
        inverse *= _STEP
        made = LogisticRegression(C=inverse, l1_ratio=1.0, solver="liblinear", max_iter=300, tol=1e-3, random_state=0)
        weights = made.fit(z, y).coef_[0]
    best = np.argsort(-np.abs(weights), kind="stable")[:limit]
    return [int(columns[i]) for i in best if weights[i]]


def probe(train: Activations, held: Activations, features: Sequence[int] | None = None) -> Probe:
    """A cross-validated logistic probe, fitted on `train`, on some features or (None) on the dense residual."""
    sides = [
        [side.residual if features is None else side.dense(features) for side in (acts.positive, acts.negative)]
        for acts in (train, held)
    ]
    coefficient, _ = logistic(*sides[0])
    scores = [(part @ coefficient).double().numpy() for part in sides[1]]
    return Probe(float(separation(scores[0][:, None], scores[1][:, None]).auc[0]), scores[0], scores[1])
