"""A verification as it is shown in a terminal, from its JSON form: verdict, table of arms, samples with highlights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.report.blocks import narrow, visible

Data = Mapping[str, Any]

_STYLES = {"works": "bold green", "no effect": "bold red", "reversed": "bold red", "not measured": "bold red"}


def verdict(data: Data) -> Text:
    """The verdict and its reasons, one on each line."""
    word = data["verdict"]
    lines = [Text(word, style=_STYLES.get(word, "bold yellow"))]
    return Text("\n").join(lines + [Text(f"  {reason}") for reason in data["reasons"]])


def table(data: Data) -> Table:
    """Scores of the primary target by arm: means, and the interval of the firing rate."""
    key = data["primary"]
    made = Table(box=SIMPLE, pad_edge=False)
    made.add_column("written by")
    for heading in ("firing rate", "mean strength", "log-likelihood", "repeated", *data["made"]["judges"]):
        made.add_column(heading, justify="right")
    for arm in data["arms"]:
        scores = arm["scores"]
        made.add_row(
            arm["label"],
            _share(scores[f"firing:{key}"]),
            _mean(scores[f"mean:{key}"], ".3g"),
            _mean(scores["log_likelihood"], ".2f"),
            _mean(scores["repetition"], ".1%"),
            *(_judged(scores[f"judge:{name}"]) for name in data["made"]["judges"]),
        )
    return made


def samples(data: Data, *, per_prompt: int | None = None) -> Iterator[RenderableType]:
    """Unsteered and steered texts, highlighted: all of them, or the first `per_prompt` of each prompt.

    Highlights are relative to the largest strength in any text, so that texts can be compared.
    """
    target = [t["name"] for t in data["targets"]].index(data["primary"])
    top = max((s for one in data["samples"] for s in one["strengths"][target]), default=0.0)
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


def _share(value: Data) -> str:
    if value["low"] is None:
        return _mean(value, ".1%")
    return f"{value['mean']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


def _judged(value: Data) -> str:
    shown = _mean(value, ".3g")
    if value["low"] is not None:
        shown += f" [{value['low']:.3g}, {value['high']:.3g}]"
    return shown + (f", {value['unscored']} unscored" if value["unscored"] and value["mean"] is not None else "")


def _mean(value: Data, form: str) -> str:
    return "unscored" if value["mean"] is None else format(value["mean"], form)
