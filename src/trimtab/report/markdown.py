"""Verifications as Markdown: the same numbers as on the page, and every sample, without pictures or highlights."""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.errors import InputError
from trimtab.report import dose_figure, tables
from trimtab.report.blocks import visible
from trimtab.report.tables import Data, Grid

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def markdown(evidences: Sequence[Data], *, title: str, command: str = "") -> str:
    """All of the verifications; text that others wrote is escaped, so that it cannot become markup."""
    if not evidences:
        raise InputError("A report needs at least one verification.")
    parts = [f"# {_escaped(title)}"]
    for data in evidences:
        parts += _section(data, heading=len(evidences) > 1)
    if command:
        parts.append(f"The same numbers again:\n\n    {command}")
    return "\n\n".join(parts) + "\n"


def _section(data: Data, *, heading: bool) -> list[str]:
    parts = [f"## {_escaped(data['question'])}"] if heading else []
    parts.append(f"**{data['verdict']}**")
    parts.append("\n".join(f"- {_escaped(tables.sentence(reason))}" for reason in data["reasons"]))
    parts.append(_table(tables.arms(data)))
    parts += [_escaped(note) for note in tables.notes(data)]
    parts += [_escaped(said) for said in tables.selectivity(data)]
    if data["dose"]:
        parts += ["### Dose and response", _table(dose_figure.grid(data["dose"]))]
    parts += ["### All scores", *(_table(grid) for grid in tables.everything(data))]
    parts += ["### How it was made", "\n".join(f"- {k}: {_escaped(v)}" for k, v in tables.made(data).items())]
    parts += ["### All samples", "None was picked. Bold: tokens at which the feature fires."]
    for number, prompt in enumerate(data["made"]["prompts"]):
        parts.append(f"#### “{_escaped(visible(prompt))}”")
        mine = [one for one in data["samples"] if one["prompt"] == number]
        parts.append("\n".join(_sample(data, one) for one in sorted(mine, key=lambda one: one["sample"])))
    return parts


def _sample(data: Data, sample: Data) -> str:
    strengths = sample["strengths"][tables.place(data)]
    words = "".join(_token(token, s) for token, s in zip(sample["tokens"], strengths, strict=True))
    return f"- {sample['sample'] + 1}, {_escaped(tables.label(data, sample['arm']))}: {words.strip()}"


def _token(token: str, strength: float) -> str:
    text = visible(token)
    core = text.strip(" ")
    if strength <= 0 or not core:
        return _escaped(text)
    lead, _, tail = text.partition(core)
    return f"{lead}**{_escaped(core)}**{tail}"


def _table(grid: Grid) -> str:
    lines = ["| " + " | ".join(_escaped(h) for h in grid.headings) + " |", "|" + "---|" * len(grid.headings)]
    lines += [
        "| " + " | ".join([_escaped(name), *(_escaped(str(c)) for c in cells)]) + " |" for name, cells in grid.rows
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split("\n")))
