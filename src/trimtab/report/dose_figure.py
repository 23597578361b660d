"""The dose curve of a recipe for a page and for Markdown: what each strength costs and does, and which was used.

From the JSON form of `trimtab.steer.dose_curve.DoseCurve`, with the factor that was used as "used".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from trimtab.report.tables import Cell, Data, Grid, number

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 280, 170, 46, 24, 10
_PANELS = (
    ("kl", "KL, nats per token"),
    ("perplexity", "perplexity, times unsteered"),
    ("repetition", "repeated 4-grams, share"),
    ("response", "response of the features"),
)


def figure(dose: Data) -> str:
    """Small pictures side by side, one for each thing that was measured; the strength used is a vertical line."""
    panels = "".join(_panel(dose, key, title) for key, title in _PANELS if _values(dose, key))
    return (
        f'<h3>Dose and response</h3><div class="panels">{panels}</div><p class="note">Against the strength, as a '
        "multiple of what was given; the vertical line is the strength used, dashed is unsteered. "
        f"{escape(_range(dose))}</p>"
    )


def grid(dose: Data) -> Grid:
    """The same numbers as a table."""
    columns = [(key, title) for key, title in _PANELS if _values(dose, key)]
    rows = tuple((f"{point['factor']:.3g}", tuple(_cell(point[key]) for key, _ in columns)) for point in dose["points"])
    return Grid(("factor", *(title for _, title in columns)), rows)


def _cell(value: float | None) -> Cell:
    return Cell("" if value is None else number(value, "number"))


def _range(dose: Data) -> str:
    low, high = dose["safe_range"]
    if low == high == 0:
        return "" if dose["unsteered"] is None else "Text is safe at no strength that was measured."
    return f"Text stays safe from {number(low, 'number')} to {number(high, 'number')} times."


def _values(dose: Data, key: str) -> list[tuple[float, float]]:
    """Factor and value of the points that have one; 0, which is unsteered, is put between them."""
    found = [(point["factor"], point[key]) for point in dose["points"] if point[key] is not None]
    plain = _level(dose, key)
    return sorted([*found, (0.0, plain)]) if found and plain is not None else found


def _level(dose: Data, key: str) -> float | None:
    """What unsteered text has."""
    fixed = {"kl": 0.0, "perplexity": 1.0}
    if key in fixed:
        return fixed[key]
    found: float | None = None if dose["unsteered"] is None else dose["unsteered"][key]
    return found


def _panel(dose: Data, key: str, title: str) -> str:
    points, used, level = _values(dose, key), float(dose["used"]), _level(dose, key)
    xs = _scale([x for x, _ in points] + [used], _LEFT, _WIDTH - 10)
    ys = _scale([y for _, y in points] + [0.0], _HEIGHT - _BOTTOM, _TOP)
    line = " ".join(f"{xs(x):.1f},{ys(y):.1f}" for x, y in points)
    dots = "".join(
        f'<circle cx="{xs(x):.1f}" cy="{ys(y):.1f}" r="3"><title>{x:.3g} times: {y:.4g}</title></circle>'
        for x, y in points
    )
    across = dict.fromkeys([points[0][0], 0.0, points[-1][0]])
    upward = dict.fromkeys([min(0.0, *(y for _, y in points)), max(y for _, y in points)])
    ticks = "".join(
        [f'<text x="{xs(x):.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{x:.2g}</text>' for x in across]
        + [f'<text x="{_LEFT - 6}" y="{ys(y) + 4:.1f}" text-anchor="end">{y:.2g}</text>' for y in upward]
    )
    floor = f'<path class="axis" d="M{_LEFT},{_TOP} V{_HEIGHT - _BOTTOM} H{_WIDTH - 10}"/>'
    plain = "" if level is None else f'<path class="plain" d="M{_LEFT},{ys(level):.1f} H{_WIDTH - 10}"/>'
    chosen = f'<path class="used" d="M{xs(used):.1f},{_TOP} V{_HEIGHT - _BOTTOM}"/>'
    inside = f'{floor}{plain}{chosen}<polyline points="{line}"/>{dots}{ticks}'
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)} against the strength">{inside}</svg></figure>'
    )


def _scale(values: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    """From values to places between two ends of a picture."""
    low, high = min(values), max(values)
    step = (stop - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * step
