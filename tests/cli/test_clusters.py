"""`trimtab clusters` on an SAE with planted rings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file


@pytest.fixture
def ringed(sae_folder: Path, tmp_path: Path) -> Path:
    """Features 3 to 9 lie on a ring about one axis; the others are orthogonal to it and to each other, or nearly."""
    folder = shutil.copytree(sae_folder, tmp_path / "rings")
    file = folder / "sae_weights.safetensors"
    weights = load_file(file)
    rows = torch.zeros(24, 16)
    angle = torch.arange(7) * 2 * torch.pi / 7
    rows[3:10, 0], rows[3:10, 1], rows[3:10, 2] = 1.0, 0.8 * angle.cos(), 0.8 * angle.sin()
    rest = [i for i in range(24) if not 3 <= i < 10]
    for k, i in enumerate(rest):
        rows[i, 3 + k % 13] = 1.0 if k < 13 else -1.0
    weights["W_dec"] = rows
    save_file(weights, file)
    return folder


def test_the_cluster_of_a_feature_is_shown_and_compared(run: Any, ringed: Path) -> None:
    words = ["clusters", "--sae", ringed, "-f", 4, "--expect", "3,4,5,6,7,8,9,20", "-f", 0, "--expect", "0"]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "1 clusters hold 7 of 24 features" in lines[0]
    assert "7 of the 8 expected, Jaccard 0.88" in lines[1]
    assert "in no cluster" in lines[2]
    said = json.loads(run(*words, "--json").stdout)
    assert sorted(said["shown"][0]["members"]) == list(range(3, 10))
    assert [one["shared"] for one in said["shown"]] == [7, 0]


def test_without_a_feature_the_largest_are_listed(run: Any, ringed: Path) -> None:
    said = json.loads(run("clusters", "--sae", ringed, "--json").stdout)
    assert [one["size"] for one in said["shown"]] == [7]
    assert json.loads(run("clusters", "--sae", ringed, "--threshold", 0.95, "--json").stdout)["clusters"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "3", "--expect", "1,x"], "indices with commas"),
        (["--expect", "1,2"], "give one for each"),
        (["-f", "99"], "99"),
        (["--threshold", "2"], "between 0 and 1"),
    ],
)
def test_bad_input_is_refused(run: Any, ringed: Path, words: list[str], said: str) -> None:
    result = run("clusters", "--sae", ringed, *words)
    assert result.exit_code == 2
    assert said in result.stderr
