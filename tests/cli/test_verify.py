"""`trimtab verify` on a tiny model."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import trimtab
from trimtab.evidence import plan
from trimtab.evidence.values import Evidence

FIXED = ["--samples", 2, "--max-new-tokens", 6, "-f", "7:3"]


def test_json_is_the_evidence_of_the_library(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["verify", "Once", "a b", *FIXED, "--seed", 3, "--json", "--model", model_folder, "--sae", sae_folder]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    said = Evidence.parse(json.loads(result.stdout))
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    recipe = trimtab.Recipe.add(sae, {7: 3.0})
    expected = trimtab.verify(model, sae, recipe, ["Once", "a b"], samples=2, max_new_tokens=6, seed=3)
    assert said == replace_command(expected, said.made.command)


def replace_command(evidence: Evidence, command: str) -> Evidence:
    return evidence.model_copy(update={"made": evidence.made.model_copy(update={"command": command})})


def test_the_command_in_a_report_gives_the_same_numbers(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    """Everything that decides a number is in the command; the reports themselves come out byte for byte."""
    pairs = tmp_path / "waves of sea.jsonl"
    sides = [(f"the wave number {i} rose", f"the tree number {i} grew") for i in range(12)]
    pairs.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in sides), encoding="utf-8")
    files = {kind: tmp_path / f"report.{kind}" for kind in ("html", "markdown")}
    words = ["verify", "Once", "a b", *FIXED, "--seed", 5, "--pairs", pairs, "--ask", "Write of 'waves'.", "--json"]
    words += [w for kind, file in files.items() for w in (f"--{kind}", file)]
    first = run(*words, "--model", model_folder, "--sae", sae_folder)
    assert first.exit_code == 0, first.stderr
    pages = {kind: file.read_text(encoding="utf-8") for kind, file in files.items()}
    command = json.loads(first.stdout)["made"]["command"]
    assert command in pages["markdown"]
    again = run(*shlex.split(command)[1:])
    assert again.stdout == first.stdout
    assert {kind: file.read_text(encoding="utf-8") for kind, file in files.items()} == pages
    arms = [arm["name"] for arm in json.loads(first.stdout)["arms"]]
    assert arms == ["unsteered", "recipe", *plan.ALL]


def test_text_has_verdict_reasons_and_arms_and_html_is_written(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    controls = ["--control", "random", "--control", "sign-flipped"]
    words = ["verify", "Once", *FIXED, *controls, "--html", page, "--model", model_folder, "--sae", sae_folder]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] in Evidence.model_fields["verdict"].annotation.__args__  # type: ignore[union-attr]
    assert lines[1].startswith("  feature 7 fires on")
    assert [line for line in lines if line.startswith(("unsteered", "steered", "random direction", "sign flipped"))]
    assert "<html" in page.read_text(encoding="utf-8")


def test_vector_is_read_by_the_feature_named(run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    row = trimtab.open_sae(sae_folder).rows([7])[0]
    file = tmp_path / "vector.json"
    file.write_text(json.dumps(row.tolist()))
    words = ["verify", "Once", "--vector", file, "--site", 1, "--strength", 15, "--read", "7:1", "--control", "none"]
    words += ["--samples", 2, "--max-new-tokens", 6, "--json", "--model", model_folder, "--sae", sae_folder]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    said = Evidence.parse(json.loads(result.stdout))
    assert said.primary == "feature 7"
    assert [arm.name for arm in said.arms] == ["unsteered", "recipe"]


def test_judges_are_made_of_the_options(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path, chat_server: str
) -> None:
    """Each option brings its judges into the evidence, with what they are worth; a poor one says that it refuses."""
    labelled = tmp_path / "labelled.jsonl"
    sides = [(f"salty waves roll number {i}", f"green trees grow number {i}") for i in range(20)]
    labelled.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in sides), encoding="utf-8")
    words = ["verify", "Once", *FIXED, "--control", "none", "--json", "--model", model_folder, "--sae", sae_folder]
    words += ["--judge-pairs", labelled, "--judge-sae", sae_folder, "--fluency-model", model_folder]
    words += ["--judge", chat_server, "--judge-concept", "the sea"]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    judges = {one["name"]: one for one in json.loads(result.stdout)["made"]["judges"]}
    assert {"classifier", "word list", "independent log-likelihood", "chat concept", "chat"} <= set(judges)
    assert any(name.startswith("features of") for name in judges)
    assert judges["classifier"]["skill"]["auc"] > 0.9
    recipe = json.loads(result.stdout)["samples"][0]
    assert recipe["scores"]["judge:chat concept"] == 1.0


def test_judges_that_lack_something_are_refused(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["verify", "Once", *FIXED, "--model", model_folder, "--sae", sae_folder]
    result = run(*words, "--judge-sae", sae_folder)
    assert result.exit_code == 2
    assert "--judge-pairs" in result.stderr
    result = run(*words, "--judge", "http://127.0.0.1:9/v1")
    assert result.exit_code == 2
    assert "--judge-concept" in result.stderr


def test_judges_that_learn_from_the_recipes_own_texts_are_told(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    sides = [(f"salty waves roll number {i}", f"green trees grow number {i}") for i in range(12)]
    pairs.write_text("".join(json.dumps({"positive": p, "negative": n}) + "\n" for p, n in sides), encoding="utf-8")
    words = ["verify", "Once", *FIXED, "--control", "none", "--pairs", pairs, "--judge-pairs", pairs]
    result = run(*words, "--model", model_folder, "--sae", sae_folder)
    assert result.exit_code == 0, result.stderr
    assert "texts of --judge-pairs are, or nearly are, texts of --pairs" in result.stderr
