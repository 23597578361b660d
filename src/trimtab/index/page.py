"""A feature as HTML: the part that the site shows, and one self-contained page. No request leaves a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from html import escape
from importlib.resources import files
from math import log1p
from pathlib import Path

from trimtab.files import write_file
from trimtab.index.records import Example, Feature, Label
from trimtab.index.show import groups
from trimtab.index.store import Index
from trimtab.report.blocks import visible

Link = Callable[[int], str | None]
"""The address of another feature's page, or None where it has none."""

_GOOD = 0.7  # a label with at least this detection score is marked


def page(feature: Feature, about: str) -> str:
    """The whole page of one feature. `about`: one line on model, SAE and corpus."""
    return frame(f"Feature {feature.index}", body(feature) + f"<p class='soft'>{escape(about)}</p>")


def write_page(path: str | Path, index: Index, feature: int) -> None:
    """Write the page of one feature."""
    text = page(index.feature(feature), index.describe())
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def body(feature: Feature, link: Link = lambda _: None, names: Mapping[int, str] | None = None) -> str:
    """What a page shows of a feature. `names`: what other features are called."""
    names = names or {}
    parts = [f"<h1>Feature {feature.index}</h1>{_labels(feature.labels)}{_tiles(feature)}"]
    cards = [_histogram(feature), _words(feature), _lens(feature)]
    near = [(n, f"{cosine:.2f}", max(0.0, cosine)) for n, cosine in feature.lens.neighbours] if feature.lens else []
    cards.append(_others("Nearest decoder rows", "cosine", near, link, names))
    shares = [(n, count / max(1, feature.count)) for n, count in feature.partners[:10]]
    cards.append(_others("Fires together with", "share", [(n, f"{s:.0%}", s) for n, s in shares], link, names))
    if len(feature.sources) > 1:
        rows = [(f"<span>{_text(n)}</span>", f"{c / feature.count:.0%}", c / feature.count) for n, c in feature.sources]
        cards.append(_card("Sources", _rows(rows[:10])))
    parts.append(f"<div class='columns'>{''.join(cards)}</div>")
    for heading, group in groups(feature.examples):
        items = "".join(_item(one, feature.max) for one in group)
        parts.append(f"<h2>{escape(heading)} <small>{len(group)}</small></h2><ol class='examples'>{items}</ol>")
    return "".join(parts)


def frame(title: str, inside: str, scripts: str = "") -> str:
    """A complete HTML page."""
    style = (files("trimtab.index") / "page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{inside}\n</main>\n{scripts}"
        "</body>\n</html>\n"
    )


def _labels(labels: Iterable[Label]) -> str:
    parts: list[str] = []
    for label in labels:
        score = "unscored" if label.score is None else f"detection {label.score:.2f}"
        good = " good" if label.score is not None and label.score >= _GOOD else ""
        more = " more" if parts else ""
        badge = f"<span class='badge{good}'>{escape(label.method)}, {score}</span>"
        parts.append(f"<p class='label{more}'>{_text(label.text)} {badge}</p>")
    return "".join(parts)


def _tiles(feature: Feature) -> str:
    tiles = [("fires on", f"{100 * feature.density:.3g} % of tokens"), ("times", f"{feature.count:,}")]
    if feature.mean is not None:
        tiles.append(("mean where it fires", f"{feature.mean:.4g}"))
    tiles.append(("largest", f"{feature.max:.4g}"))
    if feature.lens is not None and feature.lens.output_score is not None:
        tiles.append(("output score", f"{feature.lens.output_score:.3g}, {feature.lens.reads_writes}"))
    inside = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in tiles)
    return f"<dl class='tiles'>{inside}</dl>"


def _card(heading: str, inside: str, note: str = "") -> str:
    small = f" <small>{escape(note)}</small>" if note else ""
    return f"<section class='card'><h2>{escape(heading)}{small}</h2>{inside}</section>"


def _rows(rows: Iterable[tuple[str, str, float]]) -> str:
    """Lines of (markup, number, share of the line that is shaded)."""
    items = (f"<li style='--s:{share:.2f}'>{markup}<span>{escape(n)}</span></li>" for markup, n, share in rows)
    return f"<ul class='rows'>{''.join(items)}</ul>"


def _words(feature: Feature) -> str:
    if not feature.words:
        return ""
    rows = []
    for word in feature.words[:10]:
        share = word.count / max(1, word.seen)
        rows.append((f"<code>{_text(word.text)}</code>", f"{word.count:,} · {share:.0%}", word.count / feature.count))
    note = "times, and share of the times it was read"
    if feature.words_error:
        note += f"; each count up to {feature.words_error:,} more"
    return _card("Fires on", _rows(rows), note)


def _lens(feature: Feature) -> str:
    if feature.lens is None:
        return ""

    def chips(tokens: Iterable[tuple[str, float]]) -> str:
        items = "".join(f"<li title='{logit:.3g}'><code>{_text(text)}</code></li>" for text, logit in tokens)
        return f"<ul class='chips'>{items}</ul>"

    suppressed = f"<h2>Suppresses</h2>{chips(feature.lens.suppressed[:12])}"
    return _card("Promotes", chips(feature.lens.promoted[:12]) + suppressed)


def _others(heading: str, note: str, rows: list[tuple[int, str, float]], link: Link, names: Mapping[int, str]) -> str:
    if not rows:
        return ""

    def shown(number: int) -> str:
        text, address = f"{number} {_text(names.get(number, ''))}".strip(), link(number)
        return f"<a href='{escape(address)}'>{text}</a>" if address else f"<span>{text}</span>"

    return _card(heading, _rows((shown(n), value, share) for n, value, share in rows), note)


def _histogram(feature: Feature) -> str:
    if not feature.histogram:
        return ""
    most = max(n for _, _, n in feature.histogram)
    width = 100 / len(feature.histogram)
    bars = "".join(
        f"<rect x='{i * width:.2f}' y='{40 - 40 * log1p(n) / log1p(most):.2f}' width='{0.88 * width:.2f}' "
        f"height='{40 * log1p(n) / log1p(most):.2f}'><title>{low:.4g} to {high:.4g}: {n:,} tokens</title></rect>"
        for i, (low, high, n) in enumerate(feature.histogram)
    )
    low, high = feature.histogram[0][0], feature.histogram[-1][1]
    middle = feature.histogram[len(feature.histogram) // 2][0]
    inside = (
        f"<figure><svg class='bars' viewBox='0 0 100 40' preserveAspectRatio='none' role='img' "
        f"aria-label='Histogram of activations, {low:.3g} to {high:.3g}, at most {most:,} tokens in a bar'>{bars}</svg>"
        f"<div class='axis'><span>{low:.3g}</span><span>{middle:.3g}</span><span>{high:.3g}</span></div></figure>"
    )
    return _card("Activations", inside, f"both scales logarithmic; highest bar {most:,} tokens")


def _item(example: Example, top: float) -> str:
    spans = "".join(
        _span(token, value, top, place == example.at)
        for place, (token, value) in enumerate(zip(example.tokens, example.values, strict=True))
    )
    title = escape(f"{visible(example.source)}, text {example.document}", quote=True)
    return f'<li><span class="value" title="{title}">{example.value:.4g}</span><span class="text">{spans}</span></li>'


def _span(token: str, value: float, top: float, peak: bool) -> str:
    text = _running(token)
    if value <= 0 or top <= 0:
        return text
    kind = ' class="peak"' if peak else ""
    return f'<mark{kind} style="--s:{min(1.0, value / top):.2f}" title="{value:.4g}">{text}</mark>'


def _text(text: str) -> str:
    return escape(visible(text))


@lru_cache(maxsize=65536)
def _running(token: str) -> str:
    """A token in a text, where lines may end."""
    return "\n".join(_text(line) for line in token.split("\n"))
