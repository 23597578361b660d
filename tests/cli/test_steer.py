"""`trimtab steer` on a tiny model: what it writes is what the library writes, and stdout holds nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trimtab

FEATURE = 7


@pytest.fixture
def steer(run: Any, model_folder: Path, sae_folder: Path) -> Any:
    """Run `trimtab steer` greedily for 8 tokens and parse its JSON."""

    def call(*words: object, sae: bool = True) -> dict[str, Any]:
        which = ["--sae", sae_folder] if sae else []
        fixed = ["--model", model_folder, "--max-new-tokens", 8, "--temperature", 0, "--json"]
        result = run("steer", *words, *which, *fixed)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    return call


def test_same_texts_as_the_library(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["steer", "Once", "a b", "-f", f"{FEATURE}:2", "-f", "3:-1.5", "-n", 2, "--seed", 5, "--max-new-tokens", 6]
    result = run(*words, "--compare", "--json", "--model", model_folder, "--sae", sae_folder)
    said = json.loads(result.stdout)["samples"]
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    recipe = trimtab.Recipe.add(sae, {FEATURE: 2.0, 3: -1.5}, unit="max_act")
    expected = [
        record
        for one in (recipe, None)
        for record in trimtab.generate(model, ["Once", "a b"], one, samples=2, max_new_tokens=6, seed=5)
    ]
    assert [one["token_ids"] for one in said] == [list(one.token_ids) for one in expected]
    assert [one["steered"] for one in said] == [True] * 4 + [False] * 4
    assert said[0]["token_ids"] != said[4]["token_ids"]


def test_strengths_are_those_of_the_unsteered_model(steer: Any, model_folder: Path, sae_folder: Path) -> None:
    (sample,) = steer("Once", "-f", f"{FEATURE}:2")["samples"]
    model, sae = trimtab.open_model(str(model_folder)), trimtab.open_sae(sae_folder)
    import torch

    from trimtab.lm.residual import read

    ids = torch.tensor([sample["token_ids"]])
    activations = sae.encode(read(model, ids, [sae.site])[sae.site])[0, :, FEATURE]
    assert sample["strengths"] == pytest.approx(activations[sample["generated_from"] :].tolist(), abs=1e-4)
    assert len(sample["strengths"]) == len(sample["tokens"]) == 8


def test_saved_recipe_does_the_same(steer: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.recipe.safetensors"
    first = steer("Once", "-f", f"{FEATURE}:2", "--op", "clamp", "--save", file)
    again = steer("Once", "--recipe", file, sae=False)
    assert again["recipe_digest"] == first["recipe_digest"]
    assert again["samples"][0]["token_ids"] == first["samples"][0]["token_ids"]
    assert again["samples"][0]["strengths"] is None


@pytest.mark.parametrize("suffix", ["npy", "json", "safetensors"])
def test_vector_files(steer: Any, tmp_path: Path, suffix: str, sae_folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    row = trimtab.open_sae(sae_folder).rows([FEATURE])[0]
    file = tmp_path / f"vector.{suffix}"
    if suffix == "npy":
        np.save(file, row.numpy())
    elif suffix == "json":
        file.write_text(json.dumps(row.tolist()))
    else:
        save_file({"any name": row.to(torch.float32)}, file)
    vector = steer("Once", "--vector", file, "--site", "1", "--strength", 10, sae=False)
    feature = steer("Once", "-f", f"{FEATURE}:10", "--unit", "raw")
    assert vector["samples"][0]["token_ids"] == feature["samples"][0]["token_ids"]


def test_every_operation_reaches_the_library(steer: Any) -> None:
    said = {
        op: steer("Once", "-f", f"{FEATURE}:0.5", "--op", op)["recipe"]
        for op in ("add", "clamp", "scale", "min", "max")
    }
    said["ablate"] = steer("Once", "-f", str(FEATURE), "--op", "ablate")["recipe"]
    assert all(recipe.startswith(f"Recipe.{op}(") for op, recipe in said.items())


def test_text_shows_both_and_marks(run: Any, model_folder: Path, sae_folder: Path) -> None:
    words = ["steer", "Once", "-f", f"{FEATURE}:3", "--compare", "--max-new-tokens", 8]
    result = run(*words, "--model", model_folder, "--sae", sae_folder)
    heading, steered, unsteered = result.stdout.strip().splitlines()
    assert heading.startswith("Once")
    assert steered.startswith("  steered")
    assert unsteered.startswith("  unsteered")
    assert set(result.stdout) & set("▁▂▃▄▅▆▇█")
    assert "opening the model" in result.stderr
    assert "opening the model" not in result.stdout
