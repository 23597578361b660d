"""`trimtab verify` on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import trimtab
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
    assert said == expected


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
