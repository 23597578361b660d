"""`trimtab pairs`: shipped sets listed, shown and copied, new ones written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trimtab.lm.load
from trimtab.find import write
from trimtab.find.pairs import ContrastSet
from trimtab.find.sources import SHIPPED_ABOUT, read, shipped, shipped_names
from trimtab.testing.planted import planted_world


def test_every_shipped_set_is_listed_with_its_two_sides(run: Any) -> None:
    assert list(SHIPPED_ABOUT) == shipped_names()
    result = run("pairs", "--list")
    assert result.exit_code == 0, result.stderr
    for name, sides in SHIPPED_ABOUT.items():
        line = next(line for line in result.stdout.splitlines() if line.startswith(f"{name} "))
        assert line.split()[1] == str(len(shipped(name)))
        assert all(side in line for side in sides)
    listed = json.loads(run("pairs", "--list", "--json").stdout)
    assert [one["name"] for one in listed] == shipped_names()


def test_a_copy_is_the_set_itself_and_is_never_overwritten(run: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    assert run("pairs", "sea", "-o", file).exit_code == 0
    assert read(file).digest == shipped("sea").digest
    file.write_text(file.read_text().replace("sea", "lake"))
    edited = file.read_text()
    result = run("pairs", "sea", "-o", file)
    assert result.exit_code == 2
    assert "exists already" in result.stderr
    assert file.read_text() == edited


def test_a_file_is_shown_with_what_is_repeated_in_it(run: Any, tmp_path: Path) -> None:
    rows = [
        {"positive": f"The ship number {i} sailed over the sea.", "negative": f"Row {i} of the hall."}
        for i in "abcdefgh"
    ]
    file = tmp_path / "own.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    result = run("pairs", file)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert rows[3]["positive"] in lines[6]
    assert rows[3]["negative"] in lines[7]
    assert "9 pairs" in lines[-1]
    shown = json.loads(run("pairs", file, "--json").stdout)
    assert ["positive", 0, 8] in shown["duplicates"]
    assert shown["paired"]


def test_pairs_for_a_concept_are_written_by_the_local_model(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimtab.lm.load, "open_model", lambda *_, **__: planted_world().model)
    file = tmp_path / "boat.jsonl"
    result = run("pairs", "a boat", "-n", 8, "-o", file)
    assert result.exit_code == 0, result.stderr
    made = read(file)
    assert (len(made), made.paired) == (8, True)
    assert "8 of 8 pairs" in result.stderr


def test_an_endpoint_is_asked_with_the_key_of_the_named_variable(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def fake(concept: str, n: int, **rest: Any) -> ContrastSet:
        asked.update(concept=concept, n=n, **rest)
        return shipped("sea").take(8)

    monkeypatch.setattr(write, "pairs_from_endpoint", fake)
    monkeypatch.setenv("MY_KEY", "abc")
    words = ["pairs", "the sea", "-n", 20, "-o", tmp_path / "x.jsonl", "--endpoint", "http://localhost:1/v1"]
    assert run(*words).exit_code == 2  # no model named
    result = run(*words, "--endpoint-model", "big", "--api-key-env", "MY_KEY", "--seed", 4)
    assert result.exit_code == 0, result.stderr
    del asked["say"]
    assert asked == {
        "concept": "the sea", "n": 20, "url": "http://localhost:1/v1", "model": "big", "key": "abc", "seed": 4,
    }  # fmt: skip
    assert len(read(tmp_path / "x.jsonl")) == 8


def test_a_concept_without_a_file_to_write_to_is_refused(run: Any) -> None:
    result = run("pairs", "pirates")
    assert result.exit_code == 2
    assert "give -o FILE" in result.stderr
