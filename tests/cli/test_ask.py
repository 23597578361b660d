"""`trimtab ask` on the planted world."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli import ask as command
from trimtab.evidence.ask import ask
from trimtab.evidence.questions import balanced, read_questions
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture
def files(world: PlantedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """An eval whose matching answer is a sea word, among choices, and a recipe that raises those."""
    monkeypatch.setattr(command, "open_several", lambda *_: (world.model, [world.sae]))
    recipe, evals = tmp_path / "sea.recipe.safetensors", tmp_path / "sea.jsonl"
    Recipe.add(world.sae, {world.concepts["sea"]: 2.0}, unit="raw").save(recipe)
    rows = [
        {
            "question": f"the {noun} {verb} the", "answer_matching_behavior": f" {world.words['sea'][i % 3]}",
            "answer_not_matching_behavior": " stone",
        }
        for i, noun in enumerate(("cat", "dog", "child"))
        for verb in ("saw", "took", "found")
    ]  # fmt: skip
    evals.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return evals, recipe


def test_json_is_what_the_library_measures(run: Any, world: PlantedWorld, files: tuple[Path, Path]) -> None:
    words = ["ask", files[0], "--recipe", files[1], "--strength", -1, "--strength", 1, "--prompt", "the cat", "-n", 2]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    expected = ask(world.model, Recipe.load(files[1]), balanced(read_questions(files[0]), 100), (-1, 1))
    assert {key: said[key] for key in ("slope", "points", "verdict", "kinds")} == json.loads(
        json.dumps({key: expected.model_dump(mode="json")[key] for key in ("slope", "points", "verdict", "kinds")})
    )
    assert said["verdict"] == "moves the answers"
    assert [(one["factor"], one["sample"]) for one in said["completions"]] == [
        (factor, sample) for factor in (-1, 0, 1) for sample in (0, 1)
    ]


def test_terminal_and_page_agree(run: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "answers.html"
    result = run("ask", files[0], "--recipe", files[1], "--strength", 1, "--html", page, "--prompt", "none")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "moves the answers"
    slope = lines[1].partition(" by ")[2].partition(" nats")[0]
    text = page.read_text(encoding="utf-8")
    assert slope in text
    assert "<polyline" in text
    assert "Completions" not in result.stdout + text
    result = run("ask", files[0], "--recipe", files[1], "--strength", 1, "--html", page, "--prompt", "the cat saw the")
    read = [float(part) for part in re.findall(r"features at ([\d.]+),", result.stdout)]
    assert len(read) == 2
    assert read[1] > read[0]
    assert page.read_text(encoding="utf-8").count("the cat saw the") == 2


def test_bad_input_is_refused_before_the_model_is_opened(
    run: Any, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_several", lambda *_: pytest.fail("the model was opened"))
    assert "No such file" in run("ask", files[0], "--recipe", "nowhere.safetensors").stderr
    assert "measures nothing" in run("ask", files[0], "--recipe", files[1], "--strength", 0).stderr
