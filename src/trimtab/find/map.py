"""Clustered features on a map: similar features near each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trimtab.find.cluster import Clustering
from trimtab.find.similarity import Matrix, fired, similarities

if TYPE_CHECKING:
    from trimtab.find.contrast import Activations
    from trimtab.sae.sae import SAE

Place = tuple[float, float]


def coordinates(similarity: Matrix) -> Matrix:
    """Two coordinates [n, 2] whose distances are near 1 - similarity (classical scaling, Torgerson 1952).

    Signs are fixed, so that the same features always give the same picture.
    """
    n = len(similarity)
    if n < 2:
        return np.zeros((n, 2))
    centre = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-centre @ (1 - similarity) ** 2 @ centre / 2)
    best = np.argsort(values)[::-1][:2]
    found = vectors[:, best] * np.sqrt(np.maximum(values[best], 0))
    signs = np.sign(found[np.abs(found).argmax(0), range(found.shape[1])])
    result: Matrix = np.pad(found * np.where(signs == 0, 1, signs), ((0, 0), (0, 2 - found.shape[1])))
    return result


def places(clustering: Clustering, sae: SAE, acts: Activations | None = None) -> dict[int, Place]:
    """Where each feature lies on a map of width and height 1, by the similarity that the clustering used."""
    features = [*(index for one in clustering.clusters for index in one.features), *clustering.loose]
    if not features:
        return {}
    fires = None if acts is None else fired(acts, features)
    found = _scaled(coordinates(similarities(sae.rows(features), fires, clustering.similarity)))
    return {index: (float(x), float(y)) for index, (x, y) in zip(features, found, strict=True)}


def _scaled(places: Matrix) -> Matrix:
    """Coordinates from 0 to 1; a direction without any spread is centred."""
    low, spread = places.min(0), np.ptp(places, axis=0)
    result: Matrix = np.where(spread > 1e-9, (places - low) / np.where(spread > 1e-9, spread, 1), 0.5)
    return result
