"""From similarities to groups: functions from a matrix [n, n] to labels [n], -1 meaning in no group.

The graph is that of Engels et al. (2405.14860), HDBSCAN that of Lim, Tantia and Erisken (2024); the rest are the usual
ones of scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.similarity import Matrix

Labels = NDArray[np.int64]
Method = Callable[[Matrix], Labels]


def components(similarity: Matrix, threshold: float = 0.4, neighbours: int | None = None) -> Labels:
    """Connected parts of the graph whose edges are similarities above `threshold`.

    `neighbours` keeps only each feature's strongest edges (2 in Engels et al., with a threshold of 0.5 on cosine).
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.where(similarity > threshold, similarity, 0.0)
    np.fill_diagonal(edges, 0.0)
    if neighbours is not None and neighbours < len(edges):
        cut = -np.sort(-edges, axis=1)[:, neighbours - 1 : neighbours]
        edges = np.where(edges >= np.maximum(cut, 1e-12), edges, 0.0)
    labels = connected_components(csr_matrix(np.maximum(edges, edges.T)), directed=False)[1]
    return _drop_singles(labels)


def agglomerative(similarity: Matrix, threshold: float = 0.35) -> Labels:
    """Average linkage on 1 - similarity, cut where clusters are no longer `threshold` similar on average."""
    from sklearn.cluster import AgglomerativeClustering

    if len(similarity) < 2:
        return np.full(len(similarity), -1)
    made = AgglomerativeClustering(None, metric="precomputed", linkage="average", distance_threshold=1 - threshold)
    return _drop_singles(made.fit_predict(_distance(similarity)))


def hdbscan(similarity: Matrix, smallest: int = 3, least: float = 0.15) -> Labels:
    """HDBSCAN on 1 - similarity, clusters of at least `smallest`; most features of an SAE come out as noise.

    A heap of features that have nothing to do with each other is evenly dense, and so a cluster to HDBSCAN; clusters
    whose mean similarity is below `least` are called noise here.
    """
    from sklearn.cluster import HDBSCAN

    if len(similarity) < max(smallest, 2):
        return np.full(len(similarity), -1)
    made = HDBSCAN(min_cluster_size=smallest, min_samples=min(2, smallest), metric="precomputed", copy=True)
    labels = made.fit_predict(_distance(similarity))
    for label in range(labels.max(initial=-1) + 1):
        members = np.flatnonzero(labels == label)
        inside = similarity[np.ix_(members, members)].sum() - similarity[members, members].sum()
        if inside < least * len(members) * (len(members) - 1):
            labels[members] = -1
    return _drop_singles(labels)


def spectral(similarity: Matrix, clusters: int | None = None, seed: int = 0) -> Labels:
    """Spectral clustering into `clusters` groups, or as many as the largest gap among the Laplacian's values says."""
    from sklearn.cluster import SpectralClustering

    n = len(similarity)
    if n < 3:
        return np.full(n, -1)
    k = clusters or _eigengap(similarity)
    if not 1 <= k < n:
        raise InputError(f"Cannot make {k} spectral clusters of {n} features. Valid: 1 to {n - 1}.")
    made = SpectralClustering(k, affinity="precomputed", random_state=seed, assign_labels="kmeans")
    return _drop_singles(made.fit_predict(similarity + 1e-6))


METHODS: Mapping[str, Method] = {
    "components": components,
    "agglomerative": agglomerative,
    "hdbscan": hdbscan,
    "spectral": spectral,
}


def decoder_components(W_dec: Tensor, threshold: float = 0.5, neighbours: int = 2, chunk: int = 1024) -> Labels:
    """`components` of a whole decoder [d_sae, d] by cosine, a slice at a time, so that no square matrix is stored."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    unit = torch.nn.functional.normalize(W_dec.float(), dim=-1)
    rows, columns = [], []
    for start in range(0, len(unit), chunk):
        cosine = unit[start : start + chunk] @ unit.T
        cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -1
        best = cosine.topk(min(neighbours, len(unit) - 1), dim=-1)
        near, which = (best.values > threshold).nonzero(as_tuple=True)
        rows.append((near + start).numpy())
        columns.append(best.indices[near, which].numpy())
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = coo_matrix((np.ones(len(i)), (i, j)), shape=(len(unit), len(unit)))
    return _drop_singles(connected_components(graph, directed=False)[1])


def _distance(similarity: Matrix) -> Matrix:
    distance = 1.0 - np.clip((similarity + similarity.T) / 2, 0.0, 1.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def _drop_singles(labels: NDArray[Any]) -> Labels:
    """Labels renumbered 0, 1, ... in order of first appearance; clusters of one become -1."""
    result = np.full(len(labels), -1, dtype=np.int64)
    names: dict[int, int] = {}
    counts = {int(label): int((labels == label).sum()) for label in set(labels.tolist())}
    for i, label in enumerate(labels.tolist()):
        if label >= 0 and counts[label] > 1:
            result[i] = names.setdefault(label, len(names))
    return result


def _eigengap(similarity: Matrix) -> int:
    degree = similarity.sum(1)
    scale = 1 / np.sqrt(np.maximum(degree, 1e-12))
    values = np.sort(np.linalg.eigvalsh(np.eye(len(similarity)) - scale[:, None] * similarity * scale))
    most = max(2, len(values) // 2)
    return int(np.argmax(np.diff(values[: most + 1]))) + 1
