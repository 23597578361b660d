"""`trimtab runs`: what is done, what is damaged, and the same command again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def made(run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path) -> Path:
    """A sweep of two parts."""
    words = ["--model", model_folder, "--sae", sae_folder, "--max-new-tokens", 3, "--batch-size", 2, "--no-summary"]
    result = run("sweep", "Once", "a b", "-f", 7, "--strengths", "-1,2", *words, "-o", tmp_path / "runs" / "one")
    assert result.exit_code == 0, result.stderr
    return tmp_path / "runs" / "one"


def test_a_run_is_listed_shown_verified_and_resumed(run: Any, made: Path) -> None:
    listed = json.loads(run("runs", "list", made.parent, "--json").stdout)
    assert [(one["run"], one["kind"], one["done"], one["units"]) for one in listed] == [(str(made), "sweep", 2, 2)]
    assert "sweep" in run("runs", "list", made).stdout
    shown = run("runs", "show", made).stdout
    assert f"--out {made}" in shown or f"-o {made}" in shown
    assert "2 of 2 parts" in shown
    assert "2 parts in" in shown
    assert run("runs", "verify", made).exit_code == 0
    whole = {name: (made / name).read_bytes() for name in ("rows-00000.parquet", "rows-00001.parquet")}
    (made / "rows-00000.parquet").write_bytes(whole["rows-00000.parquet"][:-5])
    (made / "rows-00001.parquet").unlink()
    result = run("runs", "verify", made)
    assert result.exit_code == 1
    assert "rows-00000.parquet is damaged" in result.stdout
    assert "rows-00001.parquet is missing" in result.stdout
    result = run("runs", "resume", made)
    assert result.exit_code == 0, result.stderr
    assert "rows-00000.parquet is damaged" in result.stderr
    assert "written again" in result.stderr
    assert {name: (made / name).read_bytes() for name in whole} == whole
    assert run("runs", "verify", made).exit_code == 0


def test_a_run_that_was_moved_is_resumed_where_it_is(run: Any, made: Path, tmp_path: Path) -> None:
    there = tmp_path / "elsewhere"
    made.rename(there)
    (there / "rows-00001.parquet").unlink()
    result = run("runs", "resume", there)
    assert result.exit_code == 0, result.stderr
    assert (there / "rows-00001.parquet").exists()
    assert not made.exists()


def test_what_cannot_be_resumed(run: Any, made: Path, tmp_path: Path) -> None:
    manifest = json.loads((made / "run.json").read_text())
    for change, said in (
        ({"command": ["serve", "--host", "0.0.0.0"]}, "a command that makes no sweep"),
        ({"command": None}, "call what made it again"),
        ({"format": "other/1"}, "not the manifest of a run"),
    ):
        (made / "run.json").write_text(json.dumps(manifest | change))
        result = run("runs", "resume", made)
        assert result.exit_code == 2
        assert said in result.stderr
    manifest["spec"]["sampling"]["temperature"] = 0.5
    (made / "run.json").write_text(json.dumps(manifest))
    result = run("runs", "resume", made)
    assert result.exit_code == 2
    assert "spec.sampling.temperature: 0.5 there, 1.0 now" in result.stderr
    assert "not a run folder" in run("runs", "show", tmp_path).stderr
    assert "holds no runs" in run("runs", "list", tmp_path / "none").stderr
