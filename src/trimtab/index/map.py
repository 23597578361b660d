"""A map of features: those whose decoder rows point the same way lie near each other, one colour a cluster.

Coordinates are UMAP's (McInnes, Healy and Melville 2018, 1802.03426) on exact cosine neighbours, clusters are HDBSCAN's
leaves (Campello, Moulavi and Sander 2013) on the map. Both are stored with the index as map.parquet: feature, x and y
(0 to 1, y upwards), cluster (-1: none). Only making them needs umap-learn, the optional extra "map".
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.errors import InputError, UnsupportedError
from trimtab.files import write_file
from trimtab.index.store import Index, check_belongs

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.sae.sae import SAE

COLOURS = ("#4269d0", "#d98f0c", "#e4572e", "#2a9d8f", "#3ca951", "#e0529c", "#8e5bd6", "#5b9bd5", "#9c6b4e", "#7a8b2f")
"""One after the other for clusters from large to small, and round again; readable on white and on black."""
LOOSE = "#8a8a92"
"""The colour of features in no cluster."""
_FORMATS = (".svg", ".png")
_FEWEST = 10  # features that make a map
_CHUNK = 1024


@dataclass(frozen=True)
class Points:
    """Where features are on the map, in order of feature; clusters are numbered from the largest, -1 is none."""

    feature: np.ndarray  # [n] int32
    x: np.ndarray  # [n] float32, 0 to 1
    y: np.ndarray  # [n] float32, 0 to 1, upwards
    cluster: np.ndarray  # [n] int32


def add_map(sae: SAE, index: Index, *, neighbours: int = 15, seed: int = 0) -> Points:
    """Lay out every feature, fired or not, and store the map with the index; the same seed gives the same map.

    Raises `MismatchError` when the index was made with another SAE, `UnsupportedError` without umap-learn, `InputError`
    when the SAE has fewer than ten features.
    """
    from torch.nn.functional import normalize

    from trimtab.index.tables import write_table

    check_belongs(index, sae.fingerprint, sae.name)
    if sae.d_sae < _FEWEST:
        raise InputError(f"A map needs at least {_FEWEST} features; this SAE has {sae.d_sae}.")
    place = layout(normalize(sae.rows(range(sae.d_sae)), dim=-1), neighbours=neighbours, seed=seed)
    found = Points(np.arange(sae.d_sae, dtype=np.int32), place[:, 0], place[:, 1], clusters(place))
    write_table(index.folder / "map.parquet", vars(found))
    index.publish("map.parquet")
    return found


def read_map(index: Index) -> Points | None:
    """The stored map, or None."""
    if not index.has("map"):
        return None
    rows = index.query("from map order by feature")
    kinds = {"feature": np.int32, "x": np.float32, "y": np.float32, "cluster": np.int32}
    return Points(**{name: np.array([row[name] for row in rows], dtype=kind) for name, kind in kinds.items()})


def layout(unit: Tensor, *, neighbours: int = 15, seed: int = 0) -> np.ndarray:
    """UMAP of unit rows [n, d]: [n, 2] float32, the longer side from 0 to 1."""
    umap = _umap()
    n = len(unit)
    k = min(neighbours, n - 1)
    indices, distances = _nearest(unit, k)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that new points cannot be added later
        place = umap.UMAP(
            n_neighbors=k,
            min_dist=0.0,
            metric="cosine",
            init="pca",
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(indices, distances),
            force_approximation_algorithm=True,  # else small inputs do without the neighbours that are given
        ).fit_transform(unit.cpu().numpy())
    place = place - place.min(0)
    return np.asarray(place / max(float(place.max()), 1e-12), dtype=np.float32)


def clusters(place: np.ndarray) -> np.ndarray:
    """The cluster of each point [n, 2], the largest first, -1 for none: [n] int32."""
    from sklearn.cluster import HDBSCAN

    smallest = max(5, len(place) // 1000)
    found = HDBSCAN(min_cluster_size=smallest, cluster_selection_method="leaf", copy=True).fit_predict(place)
    sizes = np.bincount(found[found >= 0]) if (found >= 0).any() else np.zeros(0, dtype=np.int64)
    number = np.empty(len(sizes) + 1, dtype=np.int32)
    number[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    number[-1] = -1
    return number[found]


def names(clusters: np.ndarray, labels: Sequence[str], most: int = 2) -> list[str]:
    """What the labels of each cluster have in common: the words that are much more frequent in it than elsewhere."""
    bare = (re.sub(r"\([^()]*\)", " ", label.lower()) for label in labels)  # kinds of tokens are no words
    words = [set(re.findall(r"[^\W\d_]{2,}", label)) for label in bare]
    everywhere = Counter(word for some in words for word in some)
    found = []
    for cluster in range(int(clusters.max(initial=-1)) + 1):
        here = Counter(word for i in np.flatnonzero(clusters == cluster) for word in words[i])
        worth = {w: n * log(n / (everywhere[w] * (clusters == cluster).mean())) for w, n in here.items() if n > 1}
        best = sorted((w for w in worth if worth[w] > 0), key=lambda w: (-worth[w], w))
        found.append(", ".join(best[:most]))
    return found


def colour(cluster: int) -> str:
    """The colour of a cluster."""
    return COLOURS[cluster % len(COLOURS)] if cluster >= 0 else LOOSE


def write_picture(points: Points, titles: Sequence[str], path: str | Path, about: str) -> None:
    """The map as a picture, .svg or .png; the `titles` of the twelve largest clusters are written on it."""
    path = check_picture(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "trimtab", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 9.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.set_aspect("equal")
        axes.set_title(about, fontsize=9, color="#555")
        order = np.argsort(points.cluster, kind="stable")  # clusters on top of what is loose
        colours = [colour(int(c)) for c in points.cluster[order]]
        size = float(np.clip(20_000 / len(order), 2.0, 40.0))
        axes.scatter(points.x[order], points.y[order], s=size, c=colours, linewidths=0, alpha=0.8, rasterized=True)
        for number, title in enumerate(titles[:12]):
            inside = points.cluster == number
            x, y = points.x[inside].mean(), points.y[inside].mean()
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
            axes.text(x, y, title, fontsize=7.5, ha="center", va="center", bbox=box, parse_math=False)
        with write_file(path) as part:
            figure.savefig(part, format=path.suffix.lower()[1:], metadata=_undated(path))


def check_picture(path: str | Path) -> Path:
    """`path` if a picture can be written there, else `InputError`."""
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"The map can be written as {' or '.join(_FORMATS)}, not as {path.name!r}.")
    return path


def _undated(path: Path) -> dict[str, Any]:
    """So that the same map gives the same file."""
    return {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}


def _nearest(unit: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of smallest cosine distance to each of the unit rows, itself first: (indices, distances) [n, k]."""
    import torch

    indices, distances = [], []
    for start in range(0, len(unit), _CHUNK):
        cosine = unit[start : start + _CHUNK] @ unit.T
        own = torch.arange(len(cosine), device=unit.device)
        cosine[own, own + start] = 2.0
        best = cosine.topk(k)
        indices.append(best.indices.cpu())
        distances.append((1 - best.values).clamp_min(0).cpu())
    return torch.cat(indices).numpy(), torch.cat(distances).numpy()


def _umap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TensorFlow is not there
            import umap
    except ImportError as error:
        raise UnsupportedError(
            "A map needs umap-learn, which is not installed: pip install 'trimtab[map]' (or pip install umap-learn)."
        ) from error
    return umap
