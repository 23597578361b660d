"""What a recipe does to a model's answers, as it is shown in a terminal, from its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.report.finding import lines
from trimtab.report.words import signed

Data = Mapping[str, Any]

_STYLES = {"moves the answers": "bold green", "no effect": "bold red", "reversed": "bold red"}


def asked(data: Data) -> Iterator[RenderableType]:
    """The whole report, part by part."""
    yield Text(data["verdict"], style=_STYLES.get(data["verdict"], "bold yellow"))
    for reason in reasons(data):
        yield Text(f"  {reason}")
    yield answers_table(data)
    if data["statements"]:
        yield Text("Statements, without any question: likelier by, nats per token", style="bold")
        for one in data["statements"]:
            yield Text(f"  {strength(one['strength']):>6}  {spread(one, 'shift')}")
    if data.get("completions"):
        yield Text("\nCompletions, read by the unsteered model", style="bold")
        for factor, read, likely in completions(data):
            yield Text(f"  {strength(factor):>6}  {read}, {likely}")
        yield Text("\nSame random numbers on each line; none is picked", style="dim")
        yield from lines(data["completions"])


def reasons(data: Data) -> list[str]:
    """What the verdict rests on, in sentences without a full stop."""
    kinds = "; ".join(
        f"{spread(data['by_kind'][kind])} where the matching answer is {kind} ({count})"
        for kind, count in data["kinds"].items()
    )
    plain = next(one for one in data["points"] if one["strength"] == 0)
    said = [
        f"one time the recipe changes the log-odds of the matching answer by {spread(data['slope'])} nats, over "
        f"{data['questions']} questions in both orders of their answers",
        kinds,
        f"unsteered, the matching answer is the likelier one on {plain['matching']:.0%} of questions, and one of the "
        f"two answers is what the model says in {plain['mass']:.0%} of cases",
    ]
    if data["verdict"] == "moves one answer, whatever is asked":
        said.append("the two kinds move in opposite directions: the recipe raises one answer, not the behaviour")
    return said


def answers_table(data: Data) -> Table:
    """Log-odds by strength: over all questions, by kind, and what they rest on."""
    table = Table(box=SIMPLE, pad_edge=False, header_style="dim")
    heads = ["strength", "log-odds of matching", "change (95 %)", "matching\nlikelier"]
    heads += [f"where it\nis {kind}" for kind in data["kinds"]] + ["if first", "either\nanswer"]
    for heading in heads:
        table.add_column(heading, justify="right")
    for one in data["points"]:
        plain = one["strength"] == 0
        table.add_row(
            strength(one["strength"]), spread(one["log_odds"]), "–" if plain else spread(one["change"]),
            f"{one['matching']:.0%}", *(signed(one["by_kind"][kind]) for kind in data["kinds"]), signed(one["order"]),
            f"{one['mass']:.1%}", style="dim" if plain else None,
        )  # fmt: skip
    return table


def completions(data: Data) -> Iterator[tuple[float, str, str]]:
    """For each strength, what the completions are like on average: the recipe's features, and the likelihood."""
    for factor in data["strengths"]:
        mine = [one for one in data["completions"] if one["factor"] == factor]
        read = [one["strength"] for one in mine if one["strength"] is not None]
        likely = [one["log_likelihood"] for one in mine if one["log_likelihood"] is not None]
        yield (
            factor,
            f"features at {sum(read) / len(read):.2f}" if read else "no feature to read",
            f"{signed(sum(likely) / len(likely))} nats per token" if likely else "unscored",
        )


def strength(factor: float) -> str:
    """A multiple of the recipe."""
    return "none" if factor == 0 else f"{factor:+g}×".replace("-", "−")


def spread(value: Data, key: str = "mean") -> str:
    """A number with its interval, where it has one."""
    if value[key] is None:
        return "unscored"
    if value["low"] is None:
        return signed(value[key])
    return f"{signed(value[key])} [{signed(value['low'])}, {signed(value['high'])}]"
