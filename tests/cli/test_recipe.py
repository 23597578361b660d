from __future__ import annotations

import json

import pytest
import torch

from trimtab.steer.exchange.formats import FORMATS
from trimtab.steer.recipe import Recipe


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "x.recipe.safetensors"
    (Recipe.vector(torch.ones(16), 2, 0.5) + Recipe.vector(torch.ones(16), 1)).save(path)
    return path


def test_there_and_back(run, recipe_file, tmp_path) -> None:
    there, back = tmp_path / "x.gguf", tmp_path / "back.recipe.safetensors"
    done = run("recipe", "export", recipe_file, "--to", "gguf", "--name", "gemma3", "-o", there, "--json")
    assert done.exit_code == 0, done.output
    assert "BOS" in done.stderr
    assert "BOS" in json.loads(done.stdout)["notes"][0]
    done = run("recipe", "import", there, "-o", back)
    assert done.exit_code == 0, done.output
    assert "cannot be checked" in done.stderr
    shown = run("recipe", "show", back)
    assert shown.exit_code == 0, shown.output
    for words in ("vector at model.layers.2.output", "BOS too", "length 2", "imported_from: gguf", "bound to no model"):
        assert words in shown.stdout
    values = json.loads(run("recipe", "show", back, "--json").stdout)
    assert [edit["site"]["layer"] for edit in values["edits"]] == [1, 2]


def test_what_cannot_be_carried_is_one_sentence(run, recipe_file, tmp_path) -> None:
    there = tmp_path / "x.json"
    done = run("recipe", "export", recipe_file, "--to", "neuronpedia-vector", "--name", "m", "-o", there)
    assert done.exit_code == 2
    assert "one block" in done.stderr
    assert not there.exists()
    there.write_text("{}")
    done = run("recipe", "import", there, "-o", tmp_path / "y")
    assert done.exit_code == 2
    assert "--from" in done.stderr or "say it" in done.stderr


def test_features_and_scopes_are_shown(run, sae_folder, tmp_path) -> None:
    from trimtab.sae.load import open_sae
    from trimtab.spec import Scope

    path = tmp_path / "f.recipe.safetensors"
    Recipe.clamp(open_sae(str(sae_folder)), {3: 1.5}, scope=Scope(generated=False, window=(1, 4))).save(path)
    shown = run("recipe", "show", path).stdout
    for words in ("clamp at", "prompt tokens, positions 1 to 3, not BOS", "3: 1.5", "in unit max_act"):
        assert words in shown


def test_the_formats_in_the_help_are_those_that_there_are(run) -> None:
    from typing import get_args

    from trimtab.cli.recipe import Format

    assert get_args(Format) == tuple(FORMATS)
