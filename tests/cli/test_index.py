"""`trimtab index`, `features` and `feature`, as people run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [{"text": f"Number {i} went {'far ' * (i % 5)}along the {i * 7 % 31}th road to town."} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def built(texts: Path, model_folder: Path, sae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from typer.testing import CliRunner

    from trimtab.cli import app

    folder = tmp_path_factory.mktemp("index") / "index"
    words = ["index", "build", texts, "--out", folder, "--model", model_folder, "--sae", sae_folder, "--context", 32]
    result = CliRunner().invoke(app, [*map(str, words), "--heldout", str(texts), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["labelled"] == said["features"] == 24
    assert said["live"] > 0
    assert said["scored"] > 0
    return folder


def test_a_feature_in_the_terminal_as_json_and_as_a_page(built: Path, run: Any, tmp_path: Path) -> None:
    shown = run("feature", 3, "--index", built)
    assert shown.exit_code == 0
    assert "Feature 3" in shown.stdout
    assert "fires on" in shown.stdout
    found = json.loads(run("feature", 3, "--index", built, "--json").stdout)
    assert found["index"] == 3
    assert found["lens"]["output_score"] is not None
    assert run("feature", 3, "--index", built, "--html", tmp_path / "f.html").exit_code == 0
    assert "<h1>Feature 3</h1>" in (tmp_path / "f.html").read_text()
    refused = run("feature", 99, "--index", built)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "0 to 23" in refused.stderr


def test_features_are_found(built: Path, model_folder: Path, sae_folder: Path, run: Any, tmp_path: Path) -> None:
    hits = json.loads(run("features", "t", "--index", built, "--json").stdout)
    assert hits
    assert hits[0]["why"]
    (tmp_path / "v.json").write_text(json.dumps([1.0] * 16))
    near = run("features", "--vector", tmp_path / "v.json", "--sae", sae_folder, "--index", built, "--json")
    assert len(json.loads(near.stdout)) == 20
    words = ("--model", model_folder, "--sae", sae_folder, "--index", built)
    fires = json.loads(run("features", "--text", "to town", *words, "--json").stdout)
    assert "".join(fires["tokens"]) == "to town"
    assert run("features", "--text", "to town", *words).exit_code == 0
    assert "only one of them" in run("features", "--index", built).stderr
    assert "is not an index" in run("features", "x", "--index", tmp_path).stderr


def test_export_import_and_site(built: Path, run: Any, tmp_path: Path) -> None:
    made = run("index", "export", built, "--out", tmp_path / "np", "--model-id", "tiny", "--source-id", "1-own")
    assert made.exit_code == 0
    taken = run("index", "import", built, tmp_path / "np", "--expect", "tiny/1-own", "--json")
    assert json.loads(taken.stdout) == {"labels": 24}
    assert run("index", "import", built, tmp_path / "np", "--expect", "tiny/2-own").exit_code == 2
    assert run("index", "site", built, "--out", tmp_path / "site").exit_code == 0
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_map_is_made_once_and_drawn(built: Path, sae_folder: Path, run: Any, tmp_path: Path) -> None:
    assert run("index", "map", built, "--out", tmp_path / "map.gif").exit_code == 2
    made = run("index", "map", built, "--sae", sae_folder, "--neighbours", 5, "--out", tmp_path / "map.png", "--json")
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    assert 0 < said["features"] <= 24
    assert (tmp_path / "map.png").is_file()
    stored = (built / "map.parquet").stat().st_mtime_ns
    again = run("index", "map", built, "--sae", sae_folder, "--seed", 5)  # there is a map already
    assert again.stdout.startswith(f"{said['features']} features, ")
    assert (built / "map.parquet").stat().st_mtime_ns == stored
