"""Dose curves as a picture: what plain numbers do against strength."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

from trimtab.files import write_file

TEXT = "#333333"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")


@dataclass(frozen=True)
class Curve:
    """One line: `x` and `y` of its points, and the half-length of the bar at each point (None: no bars)."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Panel:
    """One pair of axes; `level` is a dashed horizontal line, such as the value without steering."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    level: float | None = None


def draw(path: str | PathLike[str], columns: Sequence[Sequence[Panel]], legend: str = "") -> None:
    """Write the picture to a file."""
    with write_file(path) as part:
        part.write_bytes(svg(columns, legend))


def svg(columns: Sequence[Sequence[Panel]], legend: str = "") -> bytes:
    """An SVG with one column of panels each; the curves of a row of panels share its vertical scale.

    `legend` is what the labels of the curves are. The same numbers give the same file.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows = max(len(column) for column in columns)
    with matplotlib.rc_context({"svg.hashsalt": "trimtab", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(1.5 + 3.6 * len(columns), 2.7 * rows), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, len(columns), sharex="col", sharey="row", squeeze=False)
        for place, column in enumerate(columns):
            for row, panel in enumerate(column):
                _panel(axes[row][place], panel, outer=place == 0)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if 1 < len(labels) <= 16:
            figure.legend(handles, labels, loc="outside right center", frameon=False, title=legend or None)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _panel(ax: object, panel: Panel, *, outer: bool) -> None:
    from matplotlib.axes import Axes

    assert isinstance(ax, Axes)
    if panel.level is not None:
        ax.axhline(panel.level, color=TEXT, linewidth=0.8, linestyle="--")
    for number, curve in enumerate(panel.curves):
        ax.errorbar(
            curve.x, curve.y, yerr=curve.error, label=curve.label, color=COLOURS[number % len(COLOURS)],
            linewidth=1.2, elinewidth=0.6, marker="o", markersize=3,
        )  # fmt: skip
    ax.set_title(panel.title, fontsize=9, color=TEXT, loc="left")
    ax.set_xlabel(panel.x_label)
    if outer:
        ax.set_ylabel(panel.y_label)
    ax.spines[["top", "right"]].set_visible(False)
