"""A verification as it is shown in a terminal, from its JSON form: verdict, table of arms, samples with highlights."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.report import tables
from trimtab.report.blocks import narrow, visible
from trimtab.report.tables import Data

_STYLES = {"works": "bold green", "no effect": "bold red", "reversed": "bold red", "not measured": "bold red"}


def verdict(data: Data) -> Text:
    """The verdict and its reasons, one on each line."""
    word = data["verdict"]
    lines = [Text(word, style=_STYLES.get(word, "bold yellow"))]
    return Text("\n").join(lines + [Text(f"  {reason}") for reason in data["reasons"]])


def table(data: Data) -> Table:
    """One row per arm, as on the page."""
    grid = tables.arms(data, short=True)
    made = Table(box=SIMPLE, pad_edge=False)
    for place, heading in enumerate(grid.headings):
        made.add_column(heading, justify="left" if place == 0 else "right")
    for name, cells in grid.rows:
        made.add_row(name, *(str(one) for one in cells))
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
