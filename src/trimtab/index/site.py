"""All features as a static site: search, a page for each, a map. It opens from disk and from any web server.

Browsers do not let a page from disk fetch data, so data come as script files: features.js is what the search knows,
points.js the map, and data/N.js the pages of features 16 N to 16 N + 15 (JSON, gzip, base64), which feature.html shows.
One file for each feature would be ten times the size, and as many files as features.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from trimtab.errors import InputError
from trimtab.files import write_folder
from trimtab.index.map import COLOURS, LOOSE, Points, names, read_map, write_picture
from trimtab.index.page import body, frame
from trimtab.index.records import Feature
from trimtab.index.store import Index, titles
from trimtab.report.blocks import visible

_TOGETHER = 16  # features in one data file, a few hundred kilobytes before gzip
_AT_ONCE = 256  # features that are read from the index at once


def write_site(index: Index, folder: str | Path, *, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Write the site of every feature into a new folder; with a map if the index has one."""
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder.")
    known, points = titles(index), read_map(index)
    with write_folder(folder) as part:
        listed = _write_features(index, part / "data", known, progress)
        _write_script(part / "features.js", "FEATURES", listed)
        (part / "index.html").write_text(_start(index, points is not None), encoding="utf-8")
        (part / "feature.html").write_text(_shell(index, points is not None), encoding="utf-8")
        if points is not None:
            _write_map(index, part, points, [known[int(i)] for i in points.feature])
    return folder


def _write_features(
    index: Index, folder: Path, known: Mapping[int, str], progress: Callable[[int], None]
) -> list[list[Any]]:
    """The data files; returns what the search knows."""
    folder.mkdir()
    listed = []
    for first in range(0, index.features, _AT_ONCE):
        pages: dict[int, dict[int, list[Any]]] = {}
        for one in index.several(range(first, min(first + _AT_ONCE, index.features))):
            inside = body(one, lambda other: f"#{other}", known)
            pages.setdefault(one.index // _TOGETHER, {})[one.index] = [visible(known[one.index]), inside]
            listed.append(_entry(one, known[one.index]))
        for number, some in pages.items():
            packed = b64encode(gzip.compress(_json(some).encode(), 6, mtime=0)).decode()
            (folder / f"{number}.js").write_text(f'shard({number},"{packed}")\n', encoding="utf-8")
        progress(min(first + _AT_ONCE, index.features))
    return listed


def _entry(feature: Feature, title: str) -> list[Any]:
    """What the search knows of a feature: number, label, other words, density, score of the label."""
    other = [label.text for label in feature.labels[1:]] + [w.text.strip() for w in feature.words[:10]]
    other += [text.strip() for text, _ in feature.lens.promoted[:8]] if feature.lens else []
    score = feature.labels[0].score if feature.labels else None
    more = visible(" ".join(dict.fromkeys(word for word in other if word)))
    return [feature.index, visible(title), more, float(f"{feature.density:.3g}"), score and round(score, 3)]


def _write_map(index: Index, folder: Path, points: Points, labels: list[str]) -> None:
    found = names(points.cluster, labels)
    data = {
        "feature": points.feature.tolist(),
        "x": (points.x * 10_000).round().astype(int).tolist(),
        "y": (points.y * 10_000).round().astype(int).tolist(),
        "cluster": points.cluster.tolist(),
        "names": found,
        "colours": COLOURS,
        "loose": LOOSE,
    }
    _write_script(folder / "points.js", "POINTS", data)
    write_picture(points, found, folder / "map.svg", index.describe())
    near = "Features whose decoder rows point the same way lie near each other (UMAP); colours are clusters (HDBSCAN)."
    if index.has("lens"):
        row = index.query("select median(neighbours_values[1]) as cosine from lens")[0]
        near += f" Half of all rows have no other within cosine {row['cosine']:.2f}."
    inside = (
        f"{_nav(True)}<h1>Map of {len(points.feature):,} features</h1>"
        "<div class='find'><label class='wide' for='words'>Search labels, tokens and numbers"
        "<input id='words' type='search' autocomplete='off'></label>"
        "<button type='button' id='in' aria-label='Zoom in'>+</button>"
        "<button type='button' id='out' aria-label='Zoom out'>−</button>"
        "<button type='button' id='all'>Whole map</button>"
        "</div><p class='soft line' id='say' role='status'></p>"
        "<div class='plot'><canvas id='map' tabindex='0' role='application' aria-describedby='keys' "
        "aria-label='Map of features'></canvas><div class='tip' id='tip' hidden></div></div>"
        "<h2>Largest clusters</h2><ul class='legend' id='legend'></ul>"
        f"<p class='soft'>{escape(near)} Neighbours are worth a look; distances across the map mean nothing.</p>"
        "<p class='soft' id='keys'>Drag and scroll or pinch. Keys on the map: arrows, + and −, 0 for all of it, n "
        "and p for the next and previous match, Enter opens a feature. <a href='map.svg'>As a picture</a>.</p>"
    )
    scripts = f"<script src='features.js'></script><script src='points.js'></script>{_script('map.js')}"
    (folder / "map.html").write_text(frame("Map of features", inside, scripts), encoding="utf-8")


def _start(index: Index, has_map: bool) -> str:
    choices = {
        "match": "Best match",
        "number": "Number",
        "density": "How often it fires",
        "score": "Score of the label",
    }
    options = "".join(f"<option value='{value}'>{text}</option>" for value, text in choices.items())
    inside = (
        f"{_nav(has_map)}<h1>Features</h1><p class='soft'>{escape(index.describe())}</p>"
        "<div class='find'><label class='wide' for='words'>Search labels, tokens and numbers"
        "<input id='words' type='search' autocomplete='off' autofocus></label>"
        f"<label for='order'>Order<select id='order'>{options}</select></label></div>"
        "<p class='soft' id='say' role='status'></p><ul class='found' id='found'></ul>"
        "<p><button type='button' id='more'>Show more</button></p>"
    )
    return frame("Features", inside, f"<script src='features.js'></script>{_script('search.js')}")


def _shell(index: Index, has_map: bool) -> str:
    ends = "<a id='before' rel='prev'>← previous</a><a id='after' rel='next'>next →</a>"
    inside = (
        f"{_nav(has_map, ends)}<div id='feature' aria-live='polite'></div>"
        f"<p class='soft'>{escape(index.describe())}. Keys: p and n for the previous and next feature, / to search.</p>"
    )
    script = _script("feature.js").replace("TOGETHER", str(_TOGETHER)).replace("COUNT", str(index.features))
    return frame("Feature", inside, script)


def _nav(has_map: bool, ends: str = "") -> str:
    more = "<a href='map.html'>Map</a>" if has_map else ""
    return f"<nav><a href='index.html'>All features</a>{more}<span class='end'>{ends}</span></nav>"


def _script(name: str) -> str:
    return f"<script>\n{(files('trimtab.index') / name).read_text('utf-8')}</script>\n"


def _write_script(path: Path, name: str, data: Any) -> None:
    path.write_text(f"const {name} = {_json(data)};\n", encoding="utf-8")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
