from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from trimtab.report import terminal


def printed(*things: Any) -> str:
    console = Console(file=io.StringIO(), width=400)
    for thing in things:
        console.print(thing)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_all_samples_or_the_first_of_each_prompt(evidence: dict[str, Any]) -> None:
    everything = list(terminal.samples(evidence))
    assert len(everything) == 2 * 2 * 3
    first = printed(*terminal.samples(evidence, per_prompt=1)).strip().split("\n")
    assert [line.split()[0] for line in first if line] == ["unsteered", "steered"] * 2
    steered = next(s for s in evidence["samples"] if (s["arm"], s["prompt"], s["sample"]) == ("recipe", 0, 0))
    line = next(line for line in first if line.strip().startswith("steered"))
    assert sum(c in "▁▂▃▄▅▆▇█" for c in line) == sum(s > 0 for s in steered["strengths"][0])


def test_blocks_are_comparable_between_texts(evidence: dict[str, Any]) -> None:
    """Only the largest strength of all has the full block, in whatever text it stands."""
    top = max(s for one in evidence["samples"] for s in one["strengths"][0])
    shown = [s for one in evidence["samples"] if one["arm"] in ("unsteered", "recipe") for s in one["strengths"][0]]
    assert printed(*terminal.samples(evidence)).count("█") == sum(s == top for s in shown)


def test_table_has_every_arm_and_says_unscored(evidence: dict[str, Any]) -> None:
    text = printed(terminal.table(evidence))
    for arm in evidence["arms"]:
        assert arm["label"] in text
    arms = [{**arm, "scores": {**arm["scores"]}} for arm in evidence["arms"]]
    nothing = {**arms[0]["scores"]["repetition"], "mean": None, "low": None, "high": None}
    arms[0]["scores"]["repetition"] = nothing
    assert "unscored" in printed(terminal.table({**evidence, "arms": arms}))


def test_verdict_with_its_reasons(evidence: dict[str, Any]) -> None:
    lines = terminal.verdict(evidence).plain.split("\n")
    assert lines[0] == evidence["verdict"]
    assert [line.strip() for line in lines[1:]] == evidence["reasons"]
