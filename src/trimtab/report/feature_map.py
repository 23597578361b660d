"""Clustered features as a picture: plain SVG that follows the page's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trimtab.report.blocks import visible

Data = Mapping[str, Any]

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8866", "#8899ff")
LOOSE = "#8a8a8a"
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 46
_FEW = 16  # so many dots each have room for a word


def colour(cluster: int | None) -> str:
    """The colour of a cluster by its number from 1; grey for features in none."""
    return LOOSE if cluster is None else COLOURS[(cluster - 1) % len(COLOURS)]


def feature_map(features: Sequence[Data], clusters: Sequence[Data]) -> str:
    """Features as dots at their `place`, in the colour of their cluster; the larger, the more they gain.

    Each is named by the word it fires on most; where there are many, clusters are named in their stead.
    """
    most = max((one["gain"] or 0.0 for one in features), default=0.0)
    dots, spots = [], {}
    for one in features:
        x, y = (_MARGIN + p * (size - 2 * _MARGIN) for p, size in zip(one["place"], (_WIDTH, _HEIGHT), strict=True))
        spots[one["index"]] = (x, y)
        radius = 5 + 7 * (max(one["gain"] or 0.0, 0.0) / most if most > 0 else 0.0)
        title = escape(f"{one['index']}: {', '.join(visible(word) for word in one['words'])}")
        dots.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour(one["cluster"])}" fill-opacity=".8">'
            f"<title>{title}</title></circle>"
        )
    named = {one["index"]: one["words"] for one in features} if len(features) <= _FEW else {}
    names = [
        f'<text x="{x:.1f}" y="{y + 24:.1f}">{escape(visible(named[index][0]))}</text>'
        for index, (x, y) in spots.items()
        if named.get(index)
    ]
    for cluster in clusters if not named else ():
        inside = [spots[index] for index in cluster["features"]]
        x, y = (sum(axis) / len(inside) for axis in zip(*inside, strict=True))
        text = escape(", ".join(visible(word) for word in cluster["words"][:2]))
        names.append(f'<text x="{min(max(x, 90), _WIDTH - 90):.1f}" y="{y - 16:.1f}">{text}</text>')
    about = f"{len(features)} features in {len(clusters)} clusters"
    return (
        f'<svg class="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{about}" text-anchor="middle" '
        f'font-size="14" fill="currentColor">{"".join(dots)}{"".join(names)}</svg>'
    )
