"""`trimtab corpus sample`: what it writes, what it says before, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.steer.run_folder import read_rows


@pytest.fixture
def words(model_folder: Path, tmp_path: Path) -> list[object]:
    """The words of a small run; two openers and BOS alone."""
    openers = tmp_path / "openers.txt"
    openers.write_text("A day\n\n", encoding="utf-8")
    fixed = ["--model", model_folder, "--tokens-each", 5, "--out", tmp_path / "run"]
    return ["corpus", "sample", "--texts", 7, "--prompt", "Once", "--prompts", openers, *fixed]


def test_texts_of_every_opener(run: Any, words: list[object], tmp_path: Path) -> None:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"folder": str(tmp_path / "run"), "texts": 7}
    rows = list(read_rows(tmp_path / "run"))
    assert [row["prompt"] for row in rows] == ["Once", "A day", "", "Once", "A day", "", "Once"]
    assert all(row["text"].startswith(row["prompt"]) for row in rows)
    result = run(*words, "--seed", 1)
    assert result.exit_code == 2
    assert "spec.seed: 0 there, 1 now" in result.stderr


def test_dry_run_counts_and_writes_nothing(run: Any, words: list[object], tmp_path: Path) -> None:
    said = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert (said["rows"], said["rows_left"], said["tokens_left"]) == (7, 7, 35)
    assert not (tmp_path / "run").exists()


def test_a_file_of_openers_that_is_not_there(run: Any, tmp_path: Path) -> None:
    result = run("corpus", "sample", "--texts", 1, "--prompts", tmp_path / "none.txt", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "none.txt" in result.stderr
