"""What a recipe does to a model's answers, as one self-contained page, from its JSON form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

from trimtab.files import write_file
from trimtab.report.asked import completions, reasons, spread, strength
from trimtab.report.feature_map import COLOURS
from trimtab.report.html import again, badge, frame
from trimtab.report.parts import row, section, table, written
from trimtab.report.words import signed

Data = Mapping[str, Any]

GOOD, BAD = ("moves the answers",), ("no effect", "reversed")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 300, 52, 40, 16


def write_asked(path: str | PathLike[str], data: Data, command: str = "") -> None:
    """Write the page, completely or not at all."""
    text = asked_page(data, command)
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def asked_page(data: Data, command: str = "") -> str:
    """The whole page. `command` gives the same numbers again."""
    items = "".join(f"<li>{escape(one[:1].upper() + one[1:])}.</li>" for one in reasons(data))
    header = f'<p class="verdict">{badge(data["verdict"], GOOD, BAD)}</p><ul class="reasons">{items}</ul>'
    body = _answers(data) + _statements(data) + _completions(data) + again(command)
    return frame(f"{data['behaviour']}: what steering does to the answers of {data['model']}", header, body)


def _answers(data: Data) -> str:
    kinds = list(data["kinds"])
    heads = ["strength", "log-odds of matching", "change", "matching likelier"]
    heads += [f"where it is {kind}" for kind in kinds] + ["if first", "either answer"]
    rows = ""
    for one in data["points"]:
        cells = {
            heads[1]: spread(one["log_odds"]),
            heads[2]: "–" if one["strength"] == 0 else spread(one["change"]),
            heads[3]: f"{one['matching']:.0%}",
            **{f"where it is {kind}": signed(one["by_kind"][kind]) for kind in kinds},
            "if first": signed(one["order"]),
            "either answer": f"{one['mass']:.1%}",
        }
        rows += row(strength(one["strength"]), cells)
    note = (
        "Each question is asked in both orders of its answers, at several multiples of the recipe. Above 0, the "
        "answer that matches the behaviour is the likelier one. The thin lines are the questions of each matching "
        "answer: if they move apart, steering raises an answer, not the behaviour. If first: how much likelier the "
        "matching answer is where it is named first. Either answer: how often the model says one of the two at all. "
        "Brackets: 95 % bootstrap interval over questions."
    )
    return section("Answers", note, _plot(data) + table(heads, rows, "Answers by strength"))


def _statements(data: Data) -> str:
    if not data["statements"]:
        return ""
    rows = "".join(row(strength(one["strength"]), {"likelier by": spread(one, "shift")}) for one in data["statements"])
    note = (
        "How much likelier the recipe makes statements that the behaviour would make than statements that it would "
        "not, as plain texts, in nats per token."
    )
    return section("Statements", note, table(["strength", "likelier by, nats per token"], rows, "Statements"))


def _completions(data: Data) -> str:
    if not data.get("completions"):
        return ""
    heads = ["strength", "the recipe's features", "log-likelihood"]
    rows = "".join(
        row(strength(factor), {heads[1]: read, heads[2]: likely}) for factor, read, likely in completions(data)
    )
    note = (
        "Means over the texts below, as the unsteered model reads them: how strongly the recipe's features fire, in "
        "residual units, and how likely the text is, in nats per token (lower: odder)."
    )
    return section("Completions", note, table(heads, rows, "Completions")) + written(data["completions"])


def _plot(data: Data) -> str:
    """Log-odds against strength: all questions with their intervals, and each kind."""
    points, kinds = data["points"], list(data["kinds"])
    every = [
        v
        for p in points
        for v in (p["log_odds"]["low"], p["log_odds"]["high"], *p["by_kind"].values())
        if v is not None
    ]
    low, high = min([0.0, *every]), max([0.0, *every])
    first, last = points[0]["strength"], points[-1]["strength"]

    def at(factor: float, value: float) -> tuple[float, float]:
        x = _LEFT + (factor - first) / ((last - first) or 1) * (_WIDTH - _LEFT - 110)
        return x, _HEIGHT - _BOTTOM - (value - low) / ((high - low) or 1) * (_HEIGHT - _BOTTOM - _TOP)

    def path(values: Sequence[float], colour: str, width: float) -> str:
        spots = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (at(p["strength"], v) for p, v in zip(points, values, strict=True))
        )
        return f'<polyline points="{spots}" fill="none" stroke="{colour}" stroke-width="{width}"/>'

    def label(value: float, text: str, colour: str) -> str:
        x, y = at(last, value)
        return f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(text)}</text>'

    zero = at(first, 0.0)[1]
    parts = [
        f'<line x1="{_LEFT}" x2="{at(last, 0)[0]:.1f}" y1="{zero:.1f}" y2="{zero:.1f}" '
        'stroke="currentColor" opacity=".3"/>'
    ]
    for value in sorted({low, 0.0, high}):
        parts.append(
            f'<text x="{_LEFT - 8}" y="{at(first, value)[1] + 4:.1f}" text-anchor="end">{signed(value, 1)}</text>'
        )
    for one in points:
        x, y = at(one["strength"], one["log_odds"]["mean"])
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 14}" text-anchor="middle">{strength(one["strength"])}</text>')
        if one["log_odds"]["low"] is not None:
            ends = (at(one["strength"], one["log_odds"][end])[1] for end in ("low", "high"))
            parts.append(
                '<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" stroke="currentColor"/>'.format(x, *ends)
            )
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
    for number, kind in enumerate(kinds):
        values = [one["by_kind"][kind] for one in points]
        parts += [path(values, COLOURS[number], 1.5), label(values[-1], f"matching: {kind}", COLOURS[number])]
    means = [one["log_odds"]["mean"] for one in points]
    parts += [path(means, "currentColor", 2.5), label(means[-1], "all", "currentColor")]
    return (
        f'<svg class="map" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="Log-odds of the matching answer by '
        f'strength" font-size="13" fill="currentColor">{"".join(parts)}</svg>'
    )
