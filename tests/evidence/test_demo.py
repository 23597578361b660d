from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from trimtab.evidence import demo
from trimtab.find.pairs import ContrastSet
from trimtab.find.select import FeatureScore
from trimtab.find.sources import shipped
from trimtab.testing.planted import PlantedWorld

PROMPTS = ("the cat saw", "a dog found", "every child")


def run(world: PlantedWorld, page: Path, names: tuple[str, ...]) -> tuple[demo.DemoResult, str]:
    sets = [
        ContrastSet.of(world.texts(n if n != "nothing" else None, 40), world.texts(None, 40, seed=1), name=n)
        for n in names
    ]
    console = Console(file=io.StringIO(), width=100)
    result = demo.demonstrate(
        world.model, world.sae, console.print, concepts=sets, prompts=PROMPTS, neutral=world.texts(None, 3),
        samples=7, new_tokens=20, page=page,
    )  # fmt: skip
    return result, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _rules_for_a_tiny_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word in twelve is the concept's here, and a single direction rules the next word."""
    monkeypatch.setattr(demo, "MAX_DENSITY", 0.3)
    monkeypatch.setattr(demo, "KL_BUDGET", 0.4)


def test_the_rule_takes_the_writers_not_the_readers_and_they_work(world: PlantedWorld, tmp_path: Path) -> None:
    result, printed = run(world, tmp_path / "page.html", ("sea", "fire", "music"))
    assert [c.feature for c in result.choices] == [world.concepts[name] for name in ("sea", "fire", "music")]
    for choice, reader in zip(result.choices, world.readers.values(), strict=False):
        assert {c.feature: c.gain for c in choice.candidates}.get(reader, 0.0) < 0.05
    assert [e and e.verdict for e in result.evidence] == ["works", "works", "works"]
    assert all(c.kl[f"{c.strength:g}"] <= 0.4 for c in result.choices)
    assert "3 of 3 concepts work" in printed
    assert str(tmp_path / "page.html") in printed.replace("\n", "")
    html = (tmp_path / "page.html").read_text("utf-8")
    assert html.count("<article") == 3 * 3 * 7


def test_a_reader_that_is_taken_is_shown_to_fail(
    world: PlantedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = demo.with_output

    def fooled(*args: Any) -> list[FeatureScore]:
        readers = set(world.readers.values())
        return [replace(score, gain=9.0) if score.index in readers else score for score in real(*args)]

    monkeypatch.setattr(demo, "with_output", fooled)
    result, printed = run(world, tmp_path / "page.html", ("fire",))
    assert result.choices[0].feature == world.readers["fire"]
    assert result.evidence[0] is not None
    assert result.evidence[0].verdict == "no effect"
    assert "0 of 1 concepts work" in printed


def test_a_concept_without_a_feature_is_shown_as_failed(world: PlantedWorld, tmp_path: Path) -> None:
    result, printed = run(world, tmp_path / "page.html", ("nothing", "sea"))
    assert result.choices[0].feature is None
    assert result.evidence[0] is None
    assert "nothing: no feature tells sentences with and without it apart. Failed." in printed
    assert "1 of 2 concepts work" in printed
    assert "For nothing no feature passed" in (tmp_path / "page.html").read_text("utf-8")
    assert demo.DemoResult.parse(json.loads(result.to_json())) == result


def test_a_budget_that_no_strength_keeps_is_said(
    world: PlantedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "KL_BUDGET", 1e-9)
    result, printed = run(world, tmp_path / "page.html", ("sea",))
    assert result.choices[0].strength == demo.GRID[0]
    assert not result.choices[0].within_budget
    assert "is over the KL budget" in printed.replace("\n", " ")


def test_the_demo_has_sets_and_neutral_sentences_of_the_size_it_promises() -> None:
    for name in demo.CONCEPTS:
        contrast = shipped(name)
        assert len(contrast.positive) >= 30
        assert len(contrast.negative) >= 30
    assert len(demo.neutral_texts()) >= 10
    assert len(demo.PROMPTS) * demo.SAMPLES >= 20
    assert demo.PROMPTS[0] == "Once upon a time"


def test_strongest_within_stops_at_the_first_that_is_over() -> None:
    assert demo.strongest_within((1.0, 2.0, 3.0), (0.1, 0.3, 0.5), 0.4) == 2.0
    assert demo.strongest_within((3.0, 1.0, 2.0), (0.1, 0.1, 0.5), 0.4) == 1.0
    assert demo.strongest_within((1.0, 2.0), (0.5, 0.6), 0.4) is None
