"""`trimtab train --preset tinystories-33m` at its full shape, on a random GPT-Neo of the same widths."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from trimtab.cli import train as command
from trimtab.lm.load import open_model
from trimtab.sae.load import check_fits, open_sae
from trimtab.sae.presets import PRESETS
from trimtab.sae.train import TrainSpec
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model

SMALL = ("--tokens", "300", "--samples", "300", "--batch", "100", "--context", "32")


def test_presets_name_arguments_and_are_valid() -> None:
    arguments = set(inspect.signature(command.run).parameters)
    for name, values in PRESETS.items():
        assert set(values) <= arguments
        assert name in inspect.getsource(command)
        TrainSpec.parse({key: value for key, value in values.items() if key != "model_name"})


def test_the_tinystories_preset_trains_and_steers(run: Any, tmp_path: Path) -> None:
    stories = tiny_model("gpt_neo", d_model=768, n_layers=2)
    folder = tmp_path / "stories"
    stories.hf.save_pretrained(folder)
    stories.tokenizer.save_pretrained(folder)
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"Once upon a time there was a cat who had {n} hats." for n in range(40)))
    words = ["train", texts, "--preset", "tinystories-33m", "--model", folder, "--out", tmp_path / "run", *SMALL]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    model, sae = open_model(str(folder)), open_sae(str(tmp_path / "run" / "sae"))
    check_fits(sae, model)
    assert (sae.d_in, sae.d_sae, sae.site.layer) == (768, 10_000, 1)
    lengths = sae.rows([0, 1, 2, 6]).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(4), rtol=1e-3, atol=1e-3)
    recipe = Recipe.add(sae, {6: 10.0}, unit="raw")  # ten unit decoder rows, as they steered
    (record,) = generate(model, ["Once upon a time"], recipe, max_new_tokens=4)
    assert len(record.token_ids) > record.generated_from


def test_neither_preset_nor_shape_is_one_sentence(run: Any, tmp_path: Path) -> None:
    result = run("train", "a.txt", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--layer and --width, or --preset" in result.stderr
