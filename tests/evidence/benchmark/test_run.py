"""The whole benchmark in the planted world, where it is known what works."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from trimtab.errors import FileError, MismatchError
from trimtab.evidence.benchmark import judge, make
from trimtab.evidence.benchmark.concepts import Concept, concept_of
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.run import Left, left, run
from trimtab.evidence.benchmark.table import Row, Table, tabulate
from trimtab.evidence.benchmark.units import BenchSpec, Folder, Unit, units_of
from trimtab.evidence.benchmark.write import read_texts
from trimtab.evidence.judges.embedding import embedding_judge
from trimtab.find import effect
from trimtab.find.pairs import ContrastSet
from trimtab.spec import Sampling
from trimtab.steer.strength import costs_of
from trimtab.testing.planted import PlantedWorld, planted_world

SPEC = BenchSpec(prompts=("the cat saw", "a dog took"), samples=6, sampling=Sampling(max_new_tokens=16))
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
        patch.setattr(make, "DEV", tuple(text[:60] for text in world.texts(None, 10, 60)))
        patch.setattr(effect, "NEUTRAL", neutral)
        patch.setattr(judge, "embedding_judge", lambda held: embedding_judge(held, encoder=bag))
        yield


def go(
    world: PlantedWorld, concepts: list[Concept], folder: Path, units: list[Unit], seconds: float | None = None
) -> Left:
    return run(world.model, [world.sae], Folder(folder), SPEC, concepts, units, witness=world.sae, seconds=seconds)


@pytest.fixture(scope="module")
def done(world: PlantedWorld, concepts: list[Concept], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "run"
    units = units_of([one.name for one in concepts], CHOSEN, [0.3])
    assert go(world, concepts, folder, units).nothing
    return folder


def rows_of(table: Table) -> dict[str, Row]:
    return {row.method: row for row in table.rows}


def test_what_works_is_told_from_what_does_not(world: PlantedWorld, concepts: list[Concept], done: Path) -> None:
    units = units_of([one.name for one in concepts], CHOSEN, [0.3])
    rows = rows_of(tabulate(Folder(done), concepts, units))
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
    for concept in concepts:
        unit = Unit(concept.name, "feature by gain", 0.3)
        recipe = make.recipe_of(Folder(done), unit, [world.sae])
        assert recipe is not None
        assert set(recipe.features) == {world.concepts[concept.name]}
        (cost,) = costs_of(world.model, [recipe], make.dose_texts(Folder(done), world.model, 0))
        assert cost.kl == pytest.approx(0.3, rel=0.05)
        said = json.loads(Folder(done).file("made", unit.path).read_text(encoding="utf-8"))
        assert (said["problem"], said["digest"]) == (None, recipe.digest)


def test_judges_and_texts_are_kept(world: PlantedWorld, concepts: list[Concept], done: Path) -> None:
    folder = Folder(done)
    about = json.loads(folder.file("judges", "sea/judges").read_text(encoding="utf-8"))
    names = [one["name"] for one in about["judges"]]
    assert names[:4] == ["classifier", "word list", "embedding", "features of planted"]
    assert all(one["skill"]["auc"] > 0.9 for one in about["judges"][:4])
    plain = read_texts(folder, Unit(None, "unsteered", None), SPEC)
    told = read_texts(folder, Unit("sea", "prompt by examples", None), SPEC)
    assert [one.prompt for one in told] == [one.prompt for one in plain] == [p for p in SPEC.prompts for _ in range(6)]
    for one in told:
        assert list(one.token_ids[: one.generated_from]) == world.model.encode(one.prompt)
        assert one.text == world.model.decode(one.token_ids[one.generated_from :])


def test_an_interrupted_run_goes_on_and_more_may_be_added(
    world: PlantedWorld, concepts: list[Concept], done: Path, tmp_path: Path
) -> None:
    few = units_of(["sea"], ["random", "feature by gain"], [0.3])
    folder = tmp_path / "run"
    first = left(Folder(folder), few, concepts[:1], SPEC)
    assert first == Left(recipes=2, units=3, tokens=3 * 12 * 16, judgements=3, seconds=None)
    assert go(world, concepts[:1], folder, few, seconds=0) == first
    assert go(world, concepts[:1], folder, few).nothing
    kept = {path: path.read_bytes() for path in folder.rglob("*.json")}
    assert go(world, concepts[:1], folder, few).nothing
    for name in ("texts/sea/feature-by-gain@0.3", "made/sea/random@0.3"):
        there, here = (json.loads((place / f"{name}.json").read_text("utf-8")) for place in (done, folder))
        assert there == here
    (folder / "texts/sea/random@0.3.json").unlink()
    (folder / "scores/sea/random@0.3.json").unlink()
    again = left(Folder(folder), few, concepts[:1], SPEC)
    assert (again.recipes, again.units, again.judgements) == (0, 1, 1)
    assert again.seconds is not None
    assert 0 < again.seconds < 600
    more = units_of([one.name for one in concepts], ["random", "feature by gain", "pca"], [0.3])
    assert go(world, concepts, folder, more).nothing
    for path, was in kept.items():
        if path.name not in ("benchmark.json", "pace.json"):
            assert path.read_bytes() == was, path
    other = SPEC.model_copy(update={"samples": 7})
    with pytest.raises(MismatchError, match=r"other settings \(spec\)"):
        Folder(folder).open(world.model, [world.sae], other, concepts)
    swapped = [concept_of(ContrastSet.of(world.texts("sea", 48, 7), world.texts(None, 48, 8), name="sea"))]
    with pytest.raises(MismatchError, match="the texts of sea"):
        Folder(folder).open(world.model, [world.sae], SPEC, swapped)
    with pytest.raises(FileError, match="not a benchmark's folder"):
        Folder(folder / "texts").open(world.model, [world.sae], SPEC, concepts)


def test_a_method_that_finds_nothing_leaves_the_model_as_it_is(
    world: PlantedWorld, concepts: list[Concept], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kit, "features", lambda self, site=0: [])
    units = units_of(["sea"], ["feature by gain"], [0.3])
    assert go(world, concepts[:1], tmp_path / "run", units).nothing
    folder = Folder(tmp_path / "run")
    plain = [one.text for one in read_texts(folder, units[0], SPEC)]
    assert [one.text for one in read_texts(folder, units[1], SPEC)] == plain
    row = rows_of(tabulate(folder, concepts[:1], units))["feature by gain"]
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
