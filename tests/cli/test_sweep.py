"""`trimtab sweep`: what it leaves in its folder, what it says before, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trimtab
from trimtab.steer.run_folder import open_run


@pytest.fixture
def grid(model_folder: Path, sae_folder: Path, tmp_path: Path) -> list[object]:
    """The words of a small sweep."""
    fixed = ["--model", model_folder, "--sae", sae_folder, "--max-new-tokens", 6, "--out", tmp_path / "run"]
    return ["sweep", "Once", "a b", "-f", 7, "-f", 3, "--strengths", "-1,2", "--seeds", 2, *fixed]


def test_rows_summary_and_picture(
    run: Any, grid: list[object], tmp_path: Path, model_folder: Path, sae_folder: Path
) -> None:
    result = run(*grid)
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "run.json", "ledger", "log", "rows-00000.parquet", "measures-00000.parquet", "summary.json", "summary.svg",
    }  # fmt: skip
    texts = list(open_run(folder).texts())
    assert len(texts) == (1 + 2 * 2) * 2 * 2
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    one = next(t for t in texts if (t["feature"], t["strength"], t["prompt"], t["seed"]) == (3, 2.0, "a b", 1))
    (expected,) = trimtab.generate(model, "a b", trimtab.Recipe.add(sae, {3: 2.0}), max_new_tokens=6, seed=1)
    assert one["token_ids"] == list(expected.token_ids)
    lines = result.stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["add", "7", "-1"], ["add", "7", "2"], ["add", "3", "-1"], ["add", "3", "2"],
    ]  # fmt: skip
    said = json.loads(run(*grid, "--json").stdout)
    assert said["rows"] == 20
    assert said["summary"] == json.loads((folder / "summary.json").read_text())


def test_dry_run_counts_and_writes_nothing(run: Any, grid: list[object], tmp_path: Path) -> None:
    said = json.loads(run(*grid, "--dry-run", "--json").stdout)
    assert (said["rows"], said["rows_left"], said["tokens_left"]) == (20, 20, 120)
    assert said["seconds_left"] == pytest.approx(120 / said["tokens_per_second"])
    assert "20 texts, 20 of them to write: at most 120 tokens" in run(*grid, "--dry-run").stdout
    assert not (tmp_path / "run").exists()


def test_another_grid_in_the_same_folder_is_refused(run: Any, grid: list[object]) -> None:
    assert run(*grid, "--no-summary").exit_code == 0
    result = run(*grid, "--no-summary", "--temperature", 0.5)
    assert result.exit_code == 2
    assert "spec.sampling.temperature: 1.0 there, 0.5 now" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "x"], "at least one --feature"),
        (["--out", "x", "-f", 1, "--strengths", "1,two"], "'1,two'"),
        (["--out", "x", "-f", 1, "-f", 1], "same value twice"),
    ],
)
def test_bad_grids(run: Any, words: list[object], said: str) -> None:
    result = run("sweep", "Once", *words)
    assert result.exit_code == 2
    assert said in result.stderr
