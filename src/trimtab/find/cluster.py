"""Groups of features: what falls together, how far one can rely on it, and what a group is about.

How alike two features are is in `similarity`, how groups are made of that in `grouping`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.contrast import Activations
from trimtab.find.grouping import METHODS, Labels, Method
from trimtab.find.similarity import Matrix, Similarity, fired, similarities
from trimtab.lm.lens import promoted, words

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE


@dataclass(frozen=True)
class Cluster:
    """Features that belong together. cosine: mean over pairs of decoder rows; name: tokens they promote together."""

    features: tuple[int, ...]
    cosine: float
    stability: float
    name: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clustering:
    """Clusters, largest first, the features in none, and how far one can rely on them.

    stability: mean over resamplings of the share of feature pairs in one cluster that stay together (1 is best),
    overall and per cluster. noise: share of features in no cluster.
    """

    clusters: tuple[Cluster, ...]
    loose: tuple[int, ...]
    similarity: Similarity
    method: str
    stability: float

    @property
    def noise(self) -> float:
        """Share of features in no cluster."""
        return len(self.loose) / max(len(self.loose) + sum(len(c.features) for c in self.clusters), 1)


def cluster(
    sae: SAE,
    features: Sequence[int],
    acts: Activations | None = None,
    *,
    similarity: Similarity = "joint",
    method: str | Method = "agglomerative",
    model: Model | None = None,
    resamples: int = 20,
    seed: int = 0,
) -> Clustering:
    """Cluster `features`. Co-activation is counted over the texts of `acts`; with `model`, clusters get names.

    method: `components`, `agglomerative`, `hdbscan` or `spectral` (see `METHODS`), or any function from similarities to
    labels, such as `partial(agglomerative, threshold=0.2)`.
    """
    if isinstance(method, str) and method not in METHODS:
        raise InputError(f"Unknown clustering method {method!r}. Valid: {', '.join(METHODS)}.")
    run = METHODS[method] if isinstance(method, str) else method
    chosen = sae.features(features)
    rows = sae.rows(chosen)
    fires = None if acts is None else fired(acts, chosen)
    labels = run(similarities(rows, fires, similarity))
    together = _together(rows, fires, similarity, run, labels, resamples, seed)
    unit = torch.nn.functional.normalize(rows, dim=-1)
    cosines = (unit @ unit.T).numpy()
    clusters = []
    for label in range(labels.max(initial=-1) + 1):
        members = np.flatnonzero(labels == label)
        pairs = np.ix_(members, members)
        off = ~np.eye(len(members), dtype=bool)
        name: tuple[str, ...] = ()
        if model is not None:
            name = words(model, promoted(model, unit[members].mean(0, keepdim=True), 6)[0])
        mean = float(cosines[pairs][off].mean()) if len(members) > 1 else 1.0
        stable = float(np.nanmean(together[pairs][off])) if len(members) > 1 and resamples else 1.0
        clusters.append(Cluster(tuple(chosen[i] for i in members), mean, stable, name))
    clusters.sort(key=lambda c: (-len(c.features), c.features))
    loose = tuple(chosen[i] for i in np.flatnonzero(labels < 0))
    same = (labels[:, None] == labels[None]) & (labels >= 0)[:, None] & ~np.eye(len(labels), dtype=bool)
    overall = float(np.nanmean(together[same])) if same.any() and resamples else 1.0
    kind = method if isinstance(method, str) else getattr(method, "__name__", "own")
    return Clustering(tuple(clusters), loose, similarity, kind, overall)


def _together(
    rows: Tensor,
    fires: NDArray[np.bool_] | None,
    kind: Similarity,
    run: Method,
    labels: Labels,
    resamples: int,
    seed: int,
) -> Matrix:
    """How often two features share a cluster when 80 % of features (and texts, redrawn) are clustered; NaN: never."""
    n = len(labels)
    rng = np.random.default_rng(seed)
    same, met = np.zeros((n, n)), np.zeros((n, n))
    for _ in range(resamples if n > 3 else 0):
        some = np.sort(rng.choice(n, max(3, int(0.8 * n)), replace=False))
        redrawn = None if fires is None else fires[rng.integers(0, len(fires), len(fires))][:, some]
        found = run(similarities(rows[torch.from_numpy(some)], redrawn, kind))
        pairs = np.ix_(some, some)
        met[pairs] += 1
        same[pairs] += (found[:, None] == found[None]) & (found >= 0)[:, None]
    if n <= 3:
        return np.ones((n, n))
    result: Matrix = np.divide(same, met, out=np.full((n, n), np.nan), where=met > 0)
    return result
