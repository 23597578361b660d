"""A picture of clustered features: similar features near each other, one colour a cluster. Plain SVG."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from trimtab.find.cluster import Clustering, Matrix, fired, similarities

if TYPE_CHECKING:
    from trimtab.find.contrast import Activations
    from trimtab.sae.sae import SAE

_COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#555555",
)
_WIDTH, _HEIGHT, _MARGIN = 640, 440, 40


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


def cluster_map(
    clustering: Clustering, sae: SAE, acts: Activations | None = None, names: Mapping[int, str] | None = None
) -> str:
    """The picture as SVG text. Features in no cluster are grey; `names` show when the pointer rests on a feature."""
    groups = [*(one.features for one in clustering.clusters), clustering.loose]
    features = [index for group in groups for index in group]
    fires = None if acts is None else fired(acts, features)
    places = _scaled(coordinates(similarities(sae.rows(features), fires, clustering.similarity)))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{len(features)} features in {len(clustering.clusters)} clusters" font-family="sans-serif">'
    ]
    row = 0
    for number, group in enumerate(groups):
        loose = number == len(clustering.clusters)
        colour = "#aaaaaa" if loose else _COLOURS[number % len(_COLOURS)]
        for index in group:
            x, y = places[row]
            label = escape(f"{index} {(names or {}).get(index, '')}".strip())
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}" fill-opacity="0.8">'
                f"<title>{label}</title></circle>"
            )
            row += 1
        if group and not loose:
            x, y = places[row - len(group) : row].mean(0)
            text = escape(
                " ".join(word.strip() for word in clustering.clusters[number].name[:3]) or f"cluster {number + 1}"
            )
            place = f'x="{x:.1f}" y="{y - 12:.1f}" text-anchor="middle" font-size="13"'
            parts.append(f"<text {place}>{text}</text>")
    return "\n".join([*parts, "</svg>", ""])


def _scaled(places: Matrix) -> Matrix:
    """Coordinates in the picture; a direction without any spread is centred."""
    if not len(places):
        return places
    low, spread = places.min(0), np.ptp(places, axis=0)
    unit = np.where(spread > 1e-9, (places - low) / np.where(spread > 1e-9, spread, 1), 0.5)
    result: Matrix = _MARGIN + unit * (np.array([_WIDTH, _HEIGHT]) - 2 * _MARGIN)
    return result
