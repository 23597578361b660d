"""A ranking as a picture: one line for each name, a dot and its interval for each number that it got."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.report.curves import COLOURS, TEXT


@dataclass(frozen=True)
class Dot:
    """A number with its interval (None: none) on the line of `name`; `group` gives the colour, `note` stands beside."""

    name: str
    group: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def draw(dots: Sequence[Dot], label: str, level: float | None = None) -> bytes:
    """An SVG with the names in the order of their best dot, the best on top. The same numbers give the same file.

    level: a dashed vertical line, such as the value without steering.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(dot.name for dot in sorted(dots, key=lambda dot: dot.value)))
    names.sort(key=lambda name: max(dot.value for dot in dots if dot.name == name))
    groups = list(dict.fromkeys(dot.group for dot in dots))
    colours = {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(groups)}
    with matplotlib.rc_context({"svg.hashsalt": "trimtab", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(8.0, 0.8 + 0.3 * len(names)), layout="constrained")
        FigureCanvasSVG(figure)
        ax = figure.subplots()
        if level is not None:
            ax.axvline(level, color=TEXT, linewidth=0.8, linestyle="--")
        for line, name in enumerate(names):
            mine = [dot for dot in dots if dot.name == name]
            for place, dot in enumerate(mine):
                y = line + (place - (len(mine) - 1) / 2) * 0.22
                if dot.low is not None and dot.high is not None:
                    ax.plot([dot.low, dot.high], [y, y], color=colours[dot.group], linewidth=1.0)
                ax.plot(dot.value, y, "o", color=colours[dot.group], markersize=4)
                if dot.note:
                    right = dot.value if dot.high is None else dot.high
                    ax.annotate(dot.note, (right, y), (4, 0), textcoords="offset points", va="center", fontsize=6)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_xlabel(label)
        ax.grid(axis="x", color="#eeeeee")
        ax.set_axisbelow(True)
        ax.spines[["top", "right"]].set_visible(False)
        handles = [Line2D([], [], color=colours[group], marker="o", markersize=4, label=group) for group in groups]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(groups), frameon=False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
