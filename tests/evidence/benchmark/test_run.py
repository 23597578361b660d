"""The whole benchmark in the planted world, where it is known what works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.errors import FileError, MismatchError
from trimtab.evidence.benchmark import judge
from trimtab.evidence.benchmark.concepts import Concept, concept_of
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.run import Left, folder_of, left, run
from trimtab.evidence.benchmark.table import Row, Table, tabulate
from trimtab.evidence.benchmark.units import BenchSpec, Cell, cells_of
from trimtab.evidence.judges.embedding import embedding_judge, installed
from trimtab.find import effect
from trimtab.find.pairs import ContrastSet
from trimtab.scale.store import open_store
from trimtab.spec import Sampling
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs_of
from trimtab.testing.planted import PlantedWorld, planted_world

DOSE = tuple(text[:60] for text in planted_world(0).texts(None, 10, 60))
SPEC = BenchSpec(
    prompts=("the cat saw", "a dog took"), dose_prompts=DOSE, samples=6, sampling=Sampling(max_new_tokens=16)
)
CHOSEN = ("random", "shuffled mean difference", "prompt by examples", "feature by gain", "mean difference")


def bag(texts: Sequence[str]) -> Tensor:
    """An encoder without a model: which words a text has."""
    rows = torch.zeros(len(texts), 97)
    for row, text in zip(rows, texts, strict=True):
        for word in text.split():
            row[sum(map(ord, word)) % 97] = 1
    return torch.nn.functional.normalize(rows, dim=-1)


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world(0)


@pytest.fixture(scope="module")
def concepts(world: PlantedWorld) -> list[Concept]:
    return [
        concept_of(ContrastSet.of(world.texts(name, 48, 1), world.texts(None, 48, 2), name=name))
        for name in ("sea", "fire")
    ]


@pytest.fixture(autouse=True, scope="module")
def known_texts(world: PlantedWorld) -> Iterator[None]:
    """The planted world knows few words, so neutral texts are its own; its embedding judge counts words."""
    neutral = tuple(world.texts(None, 8, 50))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effect, "NEUTRAL", neutral)
        patch.setattr(judge, "embedding_judge", lambda held: embedding_judge(held, encoder=bag))
        yield


def go(
    world: PlantedWorld, concepts: list[Concept], folder: Path, cells: list[Cell], seconds: float | None = None,
    said: list[str] | None = None,
) -> Left:  # fmt: skip
    say = (lambda _: None) if said is None else said.append
    return run(world.model, [world.sae], folder, SPEC, concepts, cells, witness=world.sae, seconds=seconds, say=say)


@pytest.fixture(scope="module")
def cells(concepts: list[Concept]) -> list[Cell]:
    return cells_of([one.name for one in concepts], CHOSEN, [0.3])


@pytest.fixture(scope="module")
def done(
    world: PlantedWorld, concepts: list[Concept], cells: list[Cell], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "run"
    assert not go(world, concepts, folder, cells).cells
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a run folder but its log."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "log"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows_of(table: Table) -> dict[str, Row]:
    return {row.method: row for row in table.rows}


def test_what_works_is_told_from_what_does_not(done: Path, cells: list[Cell]) -> None:
    rows = rows_of(tabulate(open_store(done), cells))
    assert set(rows) == {"unsteered", *CHOSEN}
    works = [rows[name].concept_score.mean or 0 for name in ("feature by gain", "mean difference")]
    idle = [rows[name].concept_score.mean or 0 for name in ("unsteered", "random", "shuffled mean difference")]
    assert min(works) > 2 * max(idle)
    assert all(row.texts == 24 and row.unscored == 0 for row in rows.values())
    for name in ("feature by gain", "mean difference", "random"):
        assert rows[name].kl == pytest.approx(0.3, rel=0.5)


def test_the_recipes_cost_their_budget_and_the_best_one_is_the_planted_feature(
    world: PlantedWorld, concepts: list[Concept], done: Path
) -> None:
    texts = read(done, "texts/dose.json")
    assert len(texts) == len(DOSE)
    for concept in concepts:
        cell = Cell(concept.name, "feature by gain", 0.3)
        recipe = Recipe.load(done / f"recipes/{cell.id}.recipe.safetensors")
        assert set(recipe.features) == {world.concepts[concept.name]}
        (cost,) = costs_of(world.model, [recipe], texts)
        assert cost.kl == pytest.approx(0.3, rel=0.05)
        said = read(done, f"scores/{cell.id}.json")["made"]
        assert (said["problem"], said["digest"]) == (None, recipe.digest)


def test_judges_and_texts_are_kept(world: PlantedWorld, done: Path) -> None:
    about = read(done, "judges/sea.json")
    names = [one["name"] for one in about["judges"]]
    assert names[:4] == ["classifier", "word list", "embedding", "features of planted"]
    assert all(one["skill"]["auc"] > 0.9 for one in about["judges"][:4])
    plain, told = (read(done, f"texts/{name}.json")["texts"] for name in ("unsteered", "sea--prompt-by-examples"))
    assert [one["prompt"] for one in told] == [one["prompt"] for one in plain]
    assert [one["prompt"] for one in told] == [p for p in SPEC.prompts for _ in range(6)]
    for one in told:
        assert one["token_ids"][: one["start"]] == world.model.encode(one["prompt"])
        assert one["text"] == world.model.decode(one["token_ids"][one["start"] :])


def test_an_interrupted_run_goes_on_to_the_same_bytes(
    world: PlantedWorld, concepts: list[Concept], done: Path, cells: list[Cell], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = left(folder_of(folder), cells, SPEC)
    assert first == Left(tuple(cells), (1 + 10) * 12 * 16 + 10 * 32)
    assert go(world, concepts, folder, cells, seconds=0) == first
    rest = go(world, concepts, folder, cells, seconds=1e-9)
    assert rest.cells == tuple(cells)
    while len(rest.cells) > 4:
        rest = go(world, concepts, folder, cells, seconds=0.2)
        assert rest.seconds is None or 0 < rest.seconds < 600
    assert not go(world, concepts, folder, cells).cells
    assert content(folder) == content(done)


def test_what_is_damaged_is_made_again_from_the_first_texts_on(
    world: PlantedWorld, concepts: list[Concept], done: Path, cells: list[Cell], tmp_path: Path
) -> None:
    folder, said = tmp_path / "run", list[str]()
    shutil.copytree(done, folder)
    damaged = ("texts/unsteered.json", "texts/sea--random@0.3.json", "recipes/fire--random@0.3.recipe.safetensors")
    for name in damaged:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])
    (folder / "scores/fire--mean-difference@0.3.json").unlink()
    assert [cell.id for cell in left(folder_of(folder), cells, SPEC).cells] == [
        "sea--random@0.3", "fire--random@0.3", "fire--mean-difference@0.3",
    ]  # fmt: skip
    assert not go(world, concepts, folder, cells, said=said).cells
    assert content(folder) == content(done)
    assert len(said) == 4
    for name in damaged:
        assert any(f"{name} is damaged" in one for one in said)


def test_more_may_be_added_and_nothing_changed(
    world: PlantedWorld, concepts: list[Concept], done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    few = cells_of(["sea"], ["random"], [0.3])
    assert not go(world, concepts[:1], folder, few).cells
    kept = content(folder)
    more = cells_of(["sea", "fire"], ["feature by gain", "random"], [0.3])
    assert not go(world, concepts, folder, more).cells
    assert not go(world, concepts[:1], folder, few).cells
    grown = content(folder)
    assert {name: grown[name] for name in kept if name != "run.json"} == {
        name: was for name, was in kept.items() if name != "run.json"
    }
    whole = content(done)
    assert all(grown[name] == whole[name] for name in grown if name != "run.json")
    manifest = read(folder, "run.json")
    assert set(manifest["units"]) == {"unsteered", *(cell.id for cell in more)}
    assert list(manifest["concepts"]) == ["sea", "fire"]
    swapped = [concept_of(ContrastSet.of(world.texts("sea", 48, 7), world.texts(None, 48, 8), name="sea"))]
    with pytest.raises(MismatchError, match=r"concepts\.sea\.texts: .* there, .* now"):
        go(world, swapped, folder, few)
    with pytest.raises(MismatchError, match=r"judges\.features: '.*' there, None now"):
        run(world.model, [world.sae], folder, SPEC, concepts, few)
    with monkeypatch.context() as patch:
        patch.setattr("trimtab.evidence.benchmark.run.installed", lambda: not installed())
        with pytest.raises(MismatchError, match=r"judges\.embedding: \w+ there, \w+ now"):
            go(world, concepts, folder, few)
    other = SPEC.model_copy(update={"samples": 7})
    with pytest.raises(MismatchError, match=r"another benchmark \(spec\.samples: 6 there, 7 now\)"):
        run(world.model, [world.sae], folder, other, concepts, few, witness=world.sae)
    with pytest.raises(FileError, match="not a benchmark's folder"):
        go(world, concepts, folder / "texts", few)
    assert content(folder) == grown


def test_a_method_that_finds_nothing_leaves_the_model_as_it_is(
    world: PlantedWorld, concepts: list[Concept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kit, "features", lambda self, site=0: [])
    cells = cells_of(["sea"], ["feature by gain"], [0.3])
    assert not go(world, concepts[:1], tmp_path / "run", cells).cells
    assert read(tmp_path / "run", f"scores/{cells[1].id}.json")["texts"] == "texts/unsteered.json"
    row = rows_of(tabulate(open_store(tmp_path / "run"), cells))["feature by gain"]
    assert row.problems == {"sea": "it found nothing to steer with"}
    assert row.lift.mean == 0


def test_every_method_makes_something_of_a_planted_concept(world: PlantedWorld, concepts: list[Concept]) -> None:
    kit = Kit(world.model, (world.sae,), concepts[0], {})
    for name, method in METHODS.items():
        if method.recipe is not None:
            recipe = method.recipe(kit)
            if name in ("shuffled feature", "weights fgaa"):  # so small an SAE has no such feature
                assert recipe is None
                continue
            assert recipe is not None, name
            assert recipe.edits
        elif method.prompt is not None:
            prompt = method.prompt(concepts[0], "the cat", 0)
            assert prompt.endswith("the cat")
            assert len(prompt) > len("the cat")
