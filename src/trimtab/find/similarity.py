"""How alike two features are: a matrix [n, n] in [0, 1], from decoder rows or from what fires together.

The cosine of decoder rows serves Engels et al. (2405.14860) and Lim, Tantia and Erisken (2024); co-activation is
counted by phi (Li et al. 2410.19750) and Jaccard (Clarke, Bhatnagar and Bloom 2024).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.contrast import Activations

Matrix = NDArray[np.float64]
Similarity = Literal["cosine", "phi", "jaccard", "joint"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "phi", "jaccard", "joint")


def fired(acts: Activations, features: Sequence[int]) -> NDArray[np.bool_]:
    """On which texts each feature fires, [texts, n], both sides of the contrast together."""
    sides = (acts.positive.dense(features), acts.negative.dense(features))
    return (torch.cat(sides) > 0).numpy()


def similarities(rows: Tensor, fires: NDArray[np.bool_] | None, kind: Similarity) -> Matrix:
    """Similarity [n, n] of features with decoder rows [n, d] and firings [texts, n]; negative values count as 0.

    `joint` is the mean of cosine and phi. Raises `InputError` when firings are needed and not there.
    """
    if kind not in SIMILARITIES:
        raise InputError(f"Unknown similarity {kind!r}. Valid: {', '.join(SIMILARITIES)}.")
    unit = torch.nn.functional.normalize(rows.double(), dim=-1).cpu().numpy()
    cosine = np.clip(unit @ unit.T, 0.0, 1.0)
    if kind == "cosine":
        return cosine
    if fires is None:
        raise InputError(f"The similarity {kind!r} needs texts to count co-activations on. Without any: 'cosine'.")
    if kind == "jaccard":
        return jaccard(fires)
    phi_ = np.clip(phi(fires), 0.0, 1.0)
    return phi_ if kind == "phi" else (cosine + phi_) / 2


def phi(fires: NDArray[np.bool_]) -> Matrix:
    """Phi coefficient [n, n] of the columns of fires [texts, n]: the correlation of two yes-or-no variables.

    0 where a feature fires on all texts or none; 1 on the diagonal.
    """
    x = fires.astype(np.float64)
    total = len(x)
    n11 = x.T @ x
    n1 = np.diag(n11)
    top = total * n11 - np.outer(n1, n1)
    bottom = np.sqrt(np.outer(n1 * (total - n1), n1 * (total - n1)))
    result: Matrix = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
    np.fill_diagonal(result, 1.0)
    return result


def jaccard(fires: NDArray[np.bool_]) -> Matrix:
    """Texts on which both features fire over texts on which either does, [n, n]; 1 on the diagonal."""
    x = fires.astype(np.float64)
    both = x.T @ x
    either = x.sum(0)[:, None] + x.sum(0)[None] - both
    result: Matrix = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(result, 1.0)
    return result
