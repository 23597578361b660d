"""Cross-validated regressions. The folds are over prompts, so what is chosen has to hold on prompts not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

FOLDS = 5
_RIDGE = tuple(10.0**e for e in range(-4, 4))
_NET = (0.003, 0.01, 0.03, 0.1, 0.3)
_L1_SHARE = 0.5

Solver = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def ridge(rows: np.ndarray, deltas: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Weights [k] so that weights @ rows [k, d] fits the deltas [n, d]; the penalty is relative to their squares."""

    def solve(gram: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
        solution: np.ndarray = np.linalg.solve(gram + penalty * np.trace(gram) / len(gram) * np.eye(len(gram)), target)
        return solution

    return _cross_validated(rows, deltas, _RIDGE, solve)


def elastic_net(rows: np.ndarray, deltas: np.ndarray) -> tuple[np.ndarray, float | None]:
    """As `ridge`, the penalty half on absolute values, so that many weights are exactly 0."""
    from sklearn.linear_model import ElasticNet

    def solve(gram: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
        largest = float(np.abs(target).max()) or 1.0
        factor = np.linalg.cholesky(gram + 1e-9 * np.trace(gram) * np.eye(len(gram))).T
        goal = np.linalg.solve(factor.T, target)
        made = ElasticNet(alpha=penalty * largest / len(goal), l1_ratio=_L1_SHARE, fit_intercept=False, max_iter=10_000)
        weights: np.ndarray = made.fit(factor, goal).coef_
        return weights

    return _cross_validated(rows, deltas, _NET, solve)


def non_negative(rows: np.ndarray, deltas: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Least squares with no negative weight; there is nothing to cross-validate."""
    from scipy.optimize import nnls

    return nnls(rows.T, deltas.mean(0))[0], None


def logistic(positive: Tensor, negative: Tensor) -> tuple[Tensor, float]:
    """Logistic regression of the two sides [n, k], [m, k], L2, the penalty by 5-fold cross-validated log-loss.

    Returns the coefficients per unit of each column [k] (not of the standardised one) and the inverse penalty chosen.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x = torch.cat([positive, negative]).double().numpy()
    y = np.repeat([1, 0], [len(positive), len(negative)])
    deviation = np.where(x.std(0) > 1e-12, x.std(0), 1.0)
    z = (x - x.mean(0)) / deviation
    folds = StratifiedKFold(min(FOLDS, len(positive), len(negative)), shuffle=True, random_state=0)
    # More columns than rows: a larger penalty is called for, so the grid is relative to the number of columns.
    grid = [c / np.sqrt(x.shape[1]) for c in (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)]
    losses = [
        -cross_val_score(LogisticRegression(C=c, max_iter=500), z, y, cv=folds, scoring="neg_log_loss").mean()
        for c in grid
    ]
    best = grid[int(np.argmin(losses))]
    coefficient = LogisticRegression(C=best, max_iter=500).fit(z, y).coef_[0] / deviation
    return torch.from_numpy(coefficient).float(), float(best)


def _cross_validated(
    rows: np.ndarray, deltas: np.ndarray, grid: Sequence[float], solve: Solver
) -> tuple[np.ndarray, float | None]:
    """Least squares with a penalty. All prompts share weights and rows, so only their mean delta enters a fit."""
    gram = rows @ rows.T
    order = np.random.default_rng(0).permutation(len(deltas))
    folds = np.array_split(order, min(FOLDS, len(deltas)))
    errors = np.zeros(len(grid))
    for fold in folds if len(folds) > 1 else []:
        rest = np.setdiff1d(order, fold)
        target = rows @ deltas[rest].mean(0)
        for i, penalty in enumerate(grid):
            weights = solve(gram, target, penalty)
            errors[i] += ((weights @ rows - deltas[fold].mean(0)) ** 2).sum() * len(fold)
    best = grid[int(np.argmin(errors))]
    return solve(gram, rows @ deltas.mean(0), best), best
