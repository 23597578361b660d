"""`trimtab dose`, and the strengths that `steer` and `verify` choose, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trimtab
from trimtab.steer.dose import choose, measure_dose


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer texts, so that a test takes a second."""
    monkeypatch.setattr("trimtab.steer.dose.TEXTS", 3)


def test_the_curve_is_that_of_the_library(run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    words = ["-f", "7:2", "--factors", "0.5,-1,2", "--texts", 2, "--seed", 4, "--svg", tmp_path / "dose.svg"]
    result = run("dose", *words, "--json", "--model", model_folder, "--sae", sae_folder)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    recipe = trimtab.Recipe.add(sae, {7: 2.0})
    expected = measure_dose(model, recipe, [0.5, -1, 2], sae=sae, texts=2, seed=4)
    assert said == json.loads(expected.to_json())
    assert [point["factor"] for point in said["points"]] == [-1.0, 0.5, 2.0]
    assert (tmp_path / "dose.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_the_table_has_a_line_for_each_strength(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["-f", "7", "--op", "clamp", "--factors", "1,2", "--texts", 2]
    result = run("dose", *words, "--model", model_folder, "--sae", sae_folder)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "KL" in lines[1]
    assert [line.split()[0] for line in lines[2:4]] == ["1", "2"]
    assert "Text" in lines[4]


def test_steer_without_a_strength_takes_the_auto_dose(
    run: Any, few: None, model_folder: Path, sae_folder: Path
) -> None:
    words = ["steer", "Once", "-f", "7", "--max-new-tokens", 4, "--json", "--model", model_folder, "--sae", sae_folder]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    chosen = choose(model, trimtab.Recipe.add(sae, {7: 1.0}), "auto", sae=sae)
    assert said["recipe_digest"] == chosen.recipe.digest
    assert said["dose"]["said"] == chosen.said
    assert chosen.said.split(":")[0] in " ".join(result.stderr.split())


def test_with_a_dose_strengths_are_proportions(run: Any, few: None, model_folder: Path, sae_folder: Path) -> None:
    fixed = ["--dose", "kl=0.002", "--max-new-tokens", 4, "--json", "--model", model_folder, "--sae", sae_folder]
    digests = []
    for words in (["-f", "7:1", "-f", "3:-2"], ["-f", "7:0.5", "-f", "3:-1"]):
        result = run("steer", "Once", *words, *fixed)
        assert result.exit_code == 0, result.stderr
        dose = json.loads(result.stdout)["dose"]
        assert dose["kl"] == 0.002
        digests.append(dose["factor"] * float(words[1][2:]))
    assert digests[0] == pytest.approx(digests[1], rel=0.02)


def test_strengths_that_are_given_are_used_as_they_are(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["-f", "7:2", "--max-new-tokens", 4, "--json", "--model", model_folder, "--sae", sae_folder]
    said = json.loads(run("steer", "Once", *words).stdout)
    assert said["dose"] is None
    assert "{7: 2}" in said["recipe"]
