"""A feature as one self-contained HTML page, and all features as a static site. No request leaves a page.

The site opens from disk as well as from a web server: its search reads a script file, because browsers do not let a
page from disk fetch data.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from math import log1p
from pathlib import Path

from trimtab.errors import InputError
from trimtab.files import write_file, write_folder
from trimtab.index.show import facts, groups
from trimtab.index.store import Example, Feature, Index
from trimtab.report.blocks import visible

_STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1c1c1e, #ececee); --page: light-dark(#fff, #17171a);
  --soft: light-dark(#65656c, #a5a5ad); --line: light-dark(#dcdce0, #3a3a40); --hot: 240 130 20; --bar: #c9690c; }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
.label { font-size: 1.15rem; margin: 0 } .soft, figcaption { color: var(--soft); font-size: .875rem }
ul.facts { padding-left: 1.1rem } li { overflow-wrap: anywhere }
ol.examples { list-style: none; margin: 0; padding: 0 }
ol.examples li { display: grid; grid-template-columns: 4.5rem 1fr; gap: .75rem; padding: .4rem 0;
  border-top: 1px solid var(--line) }
ol.examples .value { color: var(--soft); font-variant-numeric: tabular-nums; text-align: right }
.text { white-space: pre-wrap } mark { color: inherit; border-radius: 2px; background: rgb(var(--hot) / var(--s)) }
mark.peak { outline: 1px solid var(--bar) }
figure { margin: 1rem 0 } svg { width: 100%; height: auto; max-height: 8rem } svg rect { fill: var(--bar) }
a { color: inherit } a:focus-visible, input:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px }
input { font: inherit; width: 100%; padding: .5rem .75rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--page); color: inherit }
ul.found { list-style: none; padding: 0 } ul.found li { padding: .35rem 0; border-top: 1px solid var(--line) }
@media (max-width: 36rem) {
  ol.examples li { grid-template-columns: 1fr; gap: 0 } ol.examples .value { text-align: left } }
"""

_SEARCH = """
const [box, list, say] = ["words", "found", "say"].map(id => document.getElementById(id));
function draw() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const hits = [];
  FEATURES.forEach(([number, label, more, density], place) => {
    const text = (number + " " + label + " " + more).toLowerCase();
    if (words.every(word => text.includes(word))) {
      const worth = words.filter(word => label.toLowerCase().includes(word)).length;
      hits.push([-worth, place]);
    }
  });
  hits.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  const shown = hits.length > 200 ? ", 200 shown" : "";
  say.textContent = hits.length + (hits.length === 1 ? " feature" : " features") + shown;
  list.replaceChildren(...hits.slice(0, 200).map(([, place]) => {
    const [number, label, , density] = FEATURES[place];
    const [item, link, soft] = ["li", "a", "span"].map(tag => document.createElement(tag));
    link.href = "feature/" + number + ".html";
    link.textContent = number + "  " + label;
    soft.className = "soft";
    soft.textContent = "  fires on " + (100 * density).toPrecision(2) + " % of tokens";
    item.append(link, soft);
    return item;
  }));
}
box.addEventListener("input", draw);
draw();
"""


def page(feature: Feature, about: str, *, link: Callable[[int], str] | None = None) -> str:
    """The whole page of one feature. `about`: one line on model, SAE and corpus. `link`: the address of another one."""
    title = f"Feature {feature.index}"
    labels = "".join(
        f'<p class="label">{escape(visible(label.text))} <span class="soft">{escape(label.method)}, '
        f"{'unscored' if label.score is None else f'detection {label.score:.2f}'}</span></p>"
        for label in feature.labels
    )
    parts = [f"<h1>{title}</h1>{labels}<p class='soft'>{escape(about)}</p>"]
    parts.append(f"<ul class='facts'>{''.join(f'<li>{escape(line)}</li>' for line in facts(feature))}</ul>")
    if link is not None:
        near = dict.fromkeys([*(n for n, _ in feature.lens.neighbours)] if feature.lens else [])
        near |= dict.fromkeys(other for other, _ in feature.partners[:10])
        links = " ".join(f'<a href="{escape(link(other))}">{other}</a>' for other in near)
        parts.append(f"<p><a href='../index.html'>All features</a>{' · related: ' + links if links else ''}</p>")
    parts.append(_histogram(feature))
    for heading, group in groups(feature.examples):
        items = "".join(_item(one, feature.max) for one in group)
        parts.append(f"<h2>{escape(heading)}</h2><ol class='examples'>{items}</ol>")
    return _frame(title, "".join(parts))


def write_page(path: str | Path, index: Index, feature: int) -> None:
    """Write the page of one feature."""
    text = page(index.feature(feature), index.describe())
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_site(index: Index, folder: str | Path, *, progress: Callable[[int], None] = lambda _: None) -> Path:
    """Write a page for every feature that ever fired, and a start page with a search, into a new folder."""
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder.")
    live = [row["feature"] for row in index.query("from features where count > 0 order by feature")]
    alive, about = set(live), index.describe()
    listed = []
    with write_folder(folder) as part:
        (part / "feature").mkdir()
        for done, number in enumerate(live, 1):
            feature = index.feature(number)
            text = page(feature, about, link=lambda other: f"{other}.html" if other in alive else "../index.html")
            (part / "feature" / f"{number}.html").write_text(text, encoding="utf-8")
            listed.append(_entry(feature))
            progress(done)
        data = json.dumps(listed, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
        (part / "features.js").write_text(f"const FEATURES = {data};\n", encoding="utf-8")
        (part / "index.html").write_text(_start(index, about), encoding="utf-8")
    return folder


def _entry(feature: Feature) -> list[object]:
    """What the search knows of a feature: number, label, other words, density."""
    label = feature.labels[0].text if feature.labels else ", ".join(w.text.strip() for w in feature.words[:4])
    other = [label.text for label in feature.labels[1:]] + [w.text.strip() for w in feature.words]
    other += [text.strip() for text, _ in feature.lens.promoted] if feature.lens else []
    return [feature.index, visible(label), visible(" ".join(dict.fromkeys(other))), float(f"{feature.density:.3g}")]


def _start(index: Index, about: str) -> str:
    body = (
        f"<h1>Features</h1><p class='soft'>{escape(about)}</p>"
        "<label for='words'>Search labels, tokens and numbers</label><input id='words' type='search' autofocus>"
        "<p class='soft' id='say' role='status'></p><ul class='found' id='found'></ul>"
        f"<script src='features.js'></script><script>{_SEARCH}</script>"
    )
    return _frame("Features", body)


def _frame(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _histogram(feature: Feature) -> str:
    if not feature.histogram:
        return ""
    top = log1p(max(n for _, _, n in feature.histogram))
    width = 100 / len(feature.histogram)
    bars = "".join(
        f"<rect x='{i * width:.2f}' y='{30 - 30 * log1p(n) / top:.2f}' width='{0.9 * width:.2f}' "
        f"height='{30 * log1p(n) / top:.2f}'><title>{low:.4g} to {high:.4g}: {n:,} tokens</title></rect>"
        for i, (low, high, n) in enumerate(feature.histogram)
    )
    low, high = feature.histogram[0][0], feature.histogram[-1][1]
    return (
        "<figure><svg viewBox='0 0 100 30' preserveAspectRatio='none' role='img' aria-label='Histogram of activations'>"
        f"{bars}</svg><figcaption>Activations from {low:.3g} to {high:.3g}; both scales are logarithmic</figcaption>"
        "</figure>"
    )


def _item(example: Example, top: float) -> str:
    spans = "".join(
        _span(token, value, top, place == example.at)
        for place, (token, value) in enumerate(zip(example.tokens, example.values, strict=True))
    )
    return f'<li><span class="value">{example.value:.4g}</span><span class="text">{spans}</span></li>'


def _span(token: str, value: float, top: float, peak: bool) -> str:
    text = escape("".join(c if c == "\n" else visible(c) for c in token))
    if value <= 0 or top <= 0:
        return text
    kind = ' class="peak"' if peak else ""
    return f'<mark{kind} style="--s:{min(1.0, 0.12 + 0.88 * value / top):.2f}" title="{value:.4g}">{text}</mark>'
