"""A verification as it is shown in a terminal, from its JSON form: verdict, table of arms, samples with highlights."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.report import tables
from trimtab.report.blocks import narrow, visible
from trimtab.report.tables import Data, Grid

_STYLES = {"works": "bold green", "no effect": "bold red", "reversed": "bold red", "not measured": "bold red"}


def verdict(data: Data) -> Text:
    """The verdict and its reasons, one on each line."""
    word = data["verdict"]
    lines = [Text(word, style=_STYLES.get(word, "bold yellow"))]
    return Text("\n").join(lines + [Text(f"  {reason}") for reason in data["reasons"]])


_SHORT = {
    "firing rate": "firing",
    "minus unsteered": "change",
    "log-likelihood": "log-lik.",
    "repeated 4-grams": "repeated",
}


def table(data: Data) -> Group:
    """One row per arm, and judges in a table of their own. Intervals of the change alone; the page has all of them."""
    grid = tables.arms(data)
    judges = [judge["name"] for judge in data["made"]["judges"]]
    parts = [[h for h in grid.headings[1:] if h not in judges], judges]
    marks = [Text(line, style="dim") for line in tables.marks(grid)]
    return Group(*(_drawn(grid, headings) for headings in parts if headings), *marks)


def _drawn(grid: Grid, headings: list[str]) -> Table:
    made = Table(box=SIMPLE, pad_edge=False)
    made.add_column(grid.headings[0])
    for heading in headings:
        made.add_column(_SHORT.get(heading, heading), justify="right", no_wrap=heading in _SHORT)
    for name, cells in grid.rows:
        shown = dict(zip(grid.headings[1:], cells, strict=True))
        full = {"minus unsteered"} | (set(headings) - set(_SHORT) - {"KL"})
        made.add_row(name, *(str(shown[h]) if h in full else shown[h].text + shown[h].mark for h in headings))
    return made


def samples(data: Data, *, per_prompt: int | None = None) -> Iterator[RenderableType]:
    """Unsteered and steered texts, highlighted: all of them, or the first `per_prompt` of each prompt.

    Highlights are relative to the largest strength in any text, so that texts can be compared.
    """
    target, top = tables.place(data), tables.strongest(data)
    labels = {arm["name"]: arm["label"] for arm in data["arms"]}
    shown = [s for s in data["samples"] if s["arm"] in ("unsteered", "recipe")]
    width = max(len(labels[s["arm"]]) for s in shown)
    for one in sorted(shown, key=lambda s: (s["prompt"], s["sample"])):
        if per_prompt is not None and one["sample"] >= per_prompt:
            continue
        prompt = visible(data["made"]["prompts"][one["prompt"]])
        last = one["arm"] == "recipe"
        head = Text(f"{labels[one['arm']]:>{width}}  ", style="bold" if last else "dim")
        yield (
            head + Text(prompt, style="dim") + narrow(one["tokens"], one["strengths"][target], top) + Text("\n" * last)
        )
