"""`trimtab find` on the planted world."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import trimtab
from trimtab.cli import find as command
from trimtab.find.find import Settings, find
from trimtab.find.pairs import ContrastSet
from trimtab.find.show import to_json
from trimtab.testing.planted import PlantedWorld, planted_world

REAL = command.open_several


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture(autouse=True)
def opened(world: PlantedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "open_several", lambda *_: (world.model, [world.sae]))


@pytest.fixture(scope="module")
def sides(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("texts")
    made = folder / "yes.txt", folder / "no.txt"
    for path, texts in zip(made, (world.texts("sea", 40, seed=1), world.texts(None, 40, seed=2)), strict=True):
        path.write_text("\n".join(texts), encoding="utf-8")
    return made


def test_json_is_the_finding_of_the_library_and_the_recipe_is_written(
    run: Any, world: PlantedWorld, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    file = tmp_path / "sea.recipe.safetensors"
    options = ["--choose", "best feature", "--kl", 0.2, "--align", "none", "--limit", 8, "--fit", "equal"]
    result = run("find", "--positive", sides[0], "--negative", sides[1], *options, "-o", file, "--json")
    assert result.exit_code == 0, result.stderr
    texts = [path.read_text().splitlines() for path in sides]
    contrast = ContrastSet("yes", tuple(texts[0]), tuple(texts[1]), False, f"{sides[0]} against {sides[1]}")
    settings = Settings(choice="best feature", kl=0.2, align=None, limit=8, method="equal")
    expected = find(world.model, world.sae, contrast, settings)
    said = json.loads(result.stdout)
    lines = said.pop("lines")
    assert said == json.loads(json.dumps(to_json(expected)))
    assert [one["factor"] for one in lines] == [-1.0, 0.0, 1.0] * 3
    towards, plain = (sum(one["strength"] for one in lines if one["factor"] == f) for f in (1, 0))
    assert towards > plain
    saved = trimtab.Recipe.load(file)
    assert saved == expected.recipe
    assert saved.about.settings["kl"].given
    assert not saved.about.settings["pool"].given
    assert list(saved.features) == [world.concepts["sea"]]


def test_without_a_choice_it_says_what_it_took(run: Any, sides: tuple[Path, Path]) -> None:
    result = run("find", "--positive", sides[0], "--negative", sides[1], "--take", 30)
    assert result.exit_code == 0, result.stderr
    assert "the best on held-out texts" in result.stdout
    assert "Ways to steer" in result.stdout


def test_the_page_says_what_the_terminal_says(run: Any, sides: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "sea.html"
    words = ["find", "--positive", sides[0], "--negative", sides[1], "--html", page, "--prompt", "the dog took a"]
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    text = page.read_text(encoding="utf-8")
    shift = re.search(r"makes the positive side (\S+ \[.*?\])", result.stdout)
    assert shift is not None
    assert shift[1] in text
    assert text.count("the dog took a") == 3
    assert "http" not in text


def test_finding_nothing_is_no_error_and_writes_no_recipe(run: Any, sides: tuple[Path, Path], tmp_path: Path) -> None:
    texts = [line for path in sides for line in path.read_text().splitlines()]
    random.Random(3).shuffle(texts)
    shuffled = tmp_path / "yes.txt", tmp_path / "no.txt"
    shuffled[0].write_text("\n".join(texts[:40]))
    shuffled[1].write_text("\n".join(texts[40:]))
    file = tmp_path / "none.recipe.safetensors"
    result = run("find", "--positive", shuffled[0], "--negative", shuffled[1], "-o", file)
    assert result.exit_code == 0, result.stderr
    assert "no recipe" in result.stdout
    assert not file.exists()


def test_several_saes_of_different_sites_are_searched_together(
    run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_several", REAL)
    other = shutil.copytree(sae_folder, tmp_path / "deeper")
    config = json.loads((other / "cfg.json").read_text())
    config["metadata"]["hook_name"] = "blocks.2.hook_resid_post"
    (other / "cfg.json").write_text(json.dumps(config))
    texts = tmp_path / "yes.txt", tmp_path / "no.txt"
    for path, word in zip(texts, ("wave", "hill"), strict=True):
        path.write_text("\n".join(f"{i} {word} {i * i} {word}" for i in range(40)))
    words = ["find", "--positive", texts[0], "--negative", texts[1], "--model", model_folder, "--prompt", "none"]
    result = run(*words, "--sae", sae_folder, "--sae", other, "--fit", "caa", "--json", "-o", tmp_path / "recipe")
    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["saes"] == [str(sae_folder), str(other)]
    assert [one["site"] for one in said["positions"]] == ["model.layers.1.output", "model.layers.2.output"]
    assert [site.layer for site in trimtab.Recipe.load(tmp_path / "recipe").sites] == [1, 2]
    assert "different sites" in run(*words, "--sae", sae_folder, "--sae", sae_folder).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Nothing to find"),
        (["--pairs", "sea", "--positive", "x.txt"], "either --pairs"),
        (["--pairs", "nowhere.jsonl"], "No such file"),
        (["--pairs", "sea", "--columns", "one"], "two names with a comma"),
        (["--pairs", "sea", "--kl", "-1"], "kl"),
    ],
)
def test_bad_options_are_refused_before_anything_is_opened(
    run: Any, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "open_several", lambda *_: pytest.fail("the model was opened"))
    result = run("find", *words)
    assert result.exit_code == 2
    assert said in result.stderr
