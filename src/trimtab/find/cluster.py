"""Groups of features: how alike two features are, and what falls together.

A similarity is a matrix [n, n] in [0, 1]; a method is a function from it to labels [n], -1 meaning in no cluster. Both
come from the published procedures: the cosine of decoder rows (Engels et al. 2405.14860 for the graph, Lim, Tantia and
Erisken 2024 for HDBSCAN), co-activation by phi (Li et al. 2410.19750) and Jaccard (Clarke, Bhatnagar, Bloom 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.contrast import Activations
from trimtab.lm.lens import promoted, words

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]
Method = Callable[[Matrix], Labels]
Similarity = Literal["cosine", "phi", "jaccard", "joint"]

SIMILARITIES: tuple[Similarity, ...] = ("cosine", "phi", "jaccard", "joint")


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
    method: str = "agglomerative",
    model: Model | None = None,
    resamples: int = 20,
    seed: int = 0,
    **options: Any,
) -> Clustering:
    """Cluster `features`. Co-activation is counted over the texts of `acts`; with `model`, clusters get names.

    method: `components`, `agglomerative`, `hdbscan` or `spectral` (see `METHODS`); `options` are that method's own.
    """
    if method not in METHODS:
        raise InputError(f"Unknown clustering method {method!r}. Valid: {', '.join(METHODS)}.")
    chosen = sae.features(features)
    rows = sae.rows(chosen)
    fires = None if acts is None else fired(acts, chosen)
    run = METHODS[method]
    labels = run(similarities(rows, fires, similarity), **options)
    together = _together(rows, fires, similarity, lambda s: run(s, **options), labels, resamples, seed)
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
    return Clustering(tuple(clusters), loose, similarity, method, overall)


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


METHODS: Mapping[str, Callable[..., Labels]] = {
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
