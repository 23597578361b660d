"""`trimtab train`: options reach the training code, progress goes to stderr, the card comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trimtab.files import write_json
from trimtab.sae import train as training
from trimtab.sae.activations import Progress
from trimtab.scale.run import On


@pytest.fixture
def calls(card: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `trimtab.sae.train.train` is called with; it reports progress and writes a card."""
    seen: list[dict[str, Any]] = []

    def train(model: Any, texts: Any, spec: Any, out: Path, *, heldout: Any, on: On, progress: Any, say: Any) -> Path:
        seen.append({"model": model.name, "texts": texts, "spec": spec, "out": out, "heldout": heldout, "on": on})
        progress(Progress("training", 5, 10, "samples", 1234.0, "FVU 0.5"))
        write_json(out / "spec.json", {})
        write_json(out / "sae" / "card.json", card)
        return out / "sae"

    monkeypatch.setattr(training, "train", train)
    return seen


OPTIONS = """--layer 1 --width 64 --architecture matryoshka --k 8 --sparsity 2 --tokens 100 --samples 300 --batch 10
    --lr 0.01 --save-dtype bfloat16
    --on ray --workers 3 --context 32 --field story --heldout c.txt --heldout d.txt --seed 4"""


def test_options_reach_the_training_code(
    run: Any, calls: list[dict[str, Any]], card: dict[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    words = ["a.txt", "b.jsonl", *OPTIONS.split(), "--out", tmp_path / "run", "--model", model_folder]
    result = run("train", *words, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"sae": str(tmp_path / "run" / "sae"), "card": card}
    assert "FVU 0.5" in result.stderr
    (call,) = calls
    assert call["texts"] == ["a.txt", "b.jsonl"]
    assert call["heldout"] == ["c.txt", "d.txt"]
    assert call["model"] == str(model_folder)
    assert call["on"] == On("ray", 3)
    assert call["spec"] == training.TrainSpec(
        layer=1, width=64, architecture="matryoshka", k=8, sparsity=2, tokens=100, samples=300, batch=10, lr=0.01,
        context=32, field="story", seed=4, save_dtype="bfloat16",
    )  # fmt: skip


def test_defaults_are_those_of_the_library(
    run: Any, calls: list[dict[str, Any]], model_folder: Path, tmp_path: Path
) -> None:
    run("train", "a.txt", "--out", tmp_path / "run", "--layer", 1, "--width", 64, "--model", model_folder)
    assert calls[0]["spec"] == training.TrainSpec(layer=1, width=64)
    assert calls[0]["heldout"] is None


def test_a_run_is_only_continued_when_asked(
    run: Any, calls: list[dict[str, Any]], model_folder: Path, tmp_path: Path
) -> None:
    words = ["train", "a.txt", "--out", tmp_path / "run", "--layer", 1, "--width", 64, "--model", model_folder]
    assert run(*words).exit_code == 0
    again = run(*words)
    assert again.exit_code == 2
    assert "add --resume" in again.stderr
    assert run(*words, "--resume").exit_code == 0
    assert len(calls) == 2
