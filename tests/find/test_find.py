"""From a contrast to a recipe in one call."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch

from trimtab.errors import InputError
from trimtab.evidence.verify import verify
from trimtab.find.contrast import collect
from trimtab.find.find import Settings, find
from trimtab.find.fit import fit
from trimtab.find.pairs import ContrastSet
from trimtab.find.show import to_json
from trimtab.find.spread import middle_sites, spread
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs_of
from trimtab.testing.planted import PlantedWorld


def test_the_recipe_adds_the_planted_direction_at_the_matched_cost(
    world: PlantedWorld, sea: ContrastSet, tmp_path: Path
) -> None:
    found = find(world.model, world.sae, sea, Settings(choice="best feature", kl=0.2))
    assert found.recipe is not None
    assert found.test is not None
    assert list(found.recipe.features) == [world.concepts["sea"]]
    assert found.test.low > 0.2
    assert found.test.kl == 0.2
    assert costs_of(world.model, [found.recipe])[0].kl == pytest.approx(0.2, rel=0.05)
    assert found.auc == found.dense_auc == 1.0
    assert found.recipe.about.settings["kl"].given
    assert not found.recipe.about.settings["seed"].given
    assert found.recipe.about.contrast == sea.digest
    found.recipe.save(tmp_path / "sea.recipe.safetensors")
    assert Recipe.load(tmp_path / "sea.recipe.safetensors") == found.recipe
    ids = torch.tensor([world.model.encode("the cat saw the")])
    with torch.no_grad():
        plain = world.model.hf(ids).logits[0, -1].softmax(0)
        with world.model.edited(found.recipe):
            steered = world.model.hf(ids).logits[0, -1].softmax(0)
    words = [world.model.encode(word)[-1] for word in world.words["sea"]]
    assert float(steered[words].sum()) > 2 * float(plain[words].sum())


def test_without_a_choice_the_best_on_dev_is_taken_and_said(world: PlantedWorld, noisy: ContrastSet) -> None:
    found = find(world.model, world.sae, noisy)
    assert found.chosen is not None
    assert found.chosen.dev.shift == max(one.dev.shift for one in found.candidates)
    assert [one.name for one in found.candidates] == [
        "best feature",
        "all features",
        "cluster 1",
        "cluster 2",
        "cluster 3",
        "many blocks",
        "caa",
    ]
    assert found.baseline_test is not None
    assert found.baseline_test.kl == pytest.approx(0.3, rel=0.1)
    pairs = {frozenset(one.features) for one in found.clusterings[0].clusters}
    assert pairs >= {frozenset((world.concepts[c], world.readers[c])) for c in world.words}


def test_a_method_for_features_that_is_asked_for_leaves_what_has_none_out(
    world: PlantedWorld, noisy: ContrastSet
) -> None:
    found = find(world.model, world.sae, noisy, Settings(method="mean_difference"))
    assert found.chosen is not None
    assert found.chosen.dev.shift == max(one.dev.shift for one in found.candidates if one.fit.weights)
    assert found.chosen.name == "all features"  # three concepts: one feature or one cluster is not enough


def test_a_recipe_without_features_is_read_with_those_that_were_found(
    world: PlantedWorld, sea: ContrastSet, tmp_path: Path
) -> None:
    found = find(world.model, world.sae, sea, Settings(choice="many blocks", kl=0.4))
    assert found.recipe is not None
    assert [edit.spec.op for edit in found.recipe.edits] == ["vector"] * len(middle_sites(world.model.n_layers))
    found.recipe.save(tmp_path / "sea.recipe.safetensors")
    recipe = Recipe.load(tmp_path / "sea.recipe.safetensors")
    best = max(found.features[0], key=lambda one: (one.auc + one.held_auc, one.effect + one.held_effect))
    assert recipe.reads(world.sae) == {best.index: 1.0}
    assert to_json(found)["reads"] == [best.index]
    assert best.index in (world.concepts["sea"], world.readers["sea"])
    assert set((-recipe).reads(world.sae).values()) == {-one for one in recipe.reads(world.sae).values()}
    evidence = verify(world.model, world.sae, recipe, ["the cat saw the", "a dog"], samples=16, contrast=sea)
    assert evidence.verdict.startswith("works"), evidence.reasons
    assert {"shuffled", "mean-difference"} <= {arm.name for arm in evidence.arms}


def test_where_no_dose_costs_so_much_the_cost_on_neutral_texts_is_kept(
    world: PlantedWorld, sea: ContrastSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("No strength of this recipe costs so much.")

    monkeypatch.setattr("trimtab.find.candidates.factor_for_kl", refuse)
    found = find(world.model, world.sae, sea, Settings(align=None, choice="best feature", kl=0.2))
    assert found.recipe is not None
    assert found.test is not None
    assert found.test.kl == pytest.approx(0.2, rel=0.1)


def test_shuffled_labels_give_no_recipe(world: PlantedWorld, sea: ContrastSet) -> None:
    texts = [*sea.positive, *sea.negative]
    random.Random(3).shuffle(texts)
    found = find(world.model, world.sae, ContrastSet.of(texts[:60], texts[60:], paired=False))
    assert found.features == ((),)
    assert found.recipe is None
    json.dumps(to_json(found), allow_nan=False)


def test_the_same_settings_give_the_same_finding_in_plain_json(world: PlantedWorld, sea: ContrastSet) -> None:
    first, second = (to_json(find(world.model, world.sae, sea)) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert first["sizes"] == {"train": 30, "dev": 15, "test": 15}


def test_a_dense_method_gives_a_vector_recipe(world: PlantedWorld, sea: ContrastSet) -> None:
    found = find(world.model, world.sae, sea, Settings(method="caa", align=None))
    assert found.recipe is not None
    assert [edit.spec.op for edit in found.recipe.edits] == ["vector"]
    assert found.positions == ()
    assert [one.name for one in found.candidates] == ["many blocks", "caa"]
    assert found.test == found.baseline_test


@pytest.mark.parametrize("choice", ["caa", "many blocks", "all features"])
def test_the_choice_is_fitted_anew_on_all_texts_but_test(world: PlantedWorld, noisy: ContrastSet, choice: str) -> None:
    how = Settings(align=None, choice=choice)
    found = find(world.model, world.sae, noisy, how)
    assert found.chosen is not None
    train, dev, _ = noisy.split(how.shares, how.seed)
    both = ContrastSet.of(train.positive + dev.positive, train.negative + dev.negative)
    acts = collect(world.model, world.sae, both)[0]
    if choice == "many blocks":
        want = spread(world.model, both)
    else:
        want = fit(found.chosen.fit.method, acts, world.sae, found.chosen.features[0]).vectors
    assert found.chosen.fit.vectors.keys() == want.keys()
    for site, vector in want.items():
        assert torch.allclose(found.chosen.fit.vectors[site], vector, atol=1e-5)
    first = next(one for one in found.candidates if one.name == choice)
    assert not any(torch.allclose(first.fit.vectors[site], vector, atol=1e-5) for site, vector in want.items())


def test_a_dense_method_that_is_asked_for_is_taken_beside_the_baseline(world: PlantedWorld, sea: ContrastSet) -> None:
    found = find(world.model, world.sae, sea, Settings(method="probe", align=None))
    assert [one.name for one in found.candidates] == ["probe", "many blocks", "caa"]
    assert found.chosen is not None
    assert found.chosen.name == "probe"


def test_features_say_what_they_fire_on(world: PlantedWorld, sea: ContrastSet) -> None:
    data = to_json(find(world.model, world.sae, sea, Settings(choice="all features")))
    one = next(f for f in data["features"][0] if f["index"] == world.concepts["sea"])
    assert set(one["words"]) <= set(world.words["sea"])
    assert one["words"]
    for example in one["examples"]:
        assert example["positive"]
        best = max(range(len(example["values"])), key=lambda i: example["values"][i])
        assert example["tokens"][best].strip() in world.words["sea"]
    assert one["cluster"] == 1
    assert one["weight"] is not None
    assert set(data["clusterings"][0]["clusters"][0]["words"]) <= set(world.words["sea"])


def test_progress_is_told_to_its_end(world: PlantedWorld, sea: ContrastSet) -> None:
    said: list[tuple[str, int, int]] = []
    find(world.model, world.sae, sea, progress=lambda *now: said.append(now))
    for stage in ("reading", "measuring", "checking"):
        done = [now for name, now, _ in said if name == stage]
        assert done == sorted(done)
        assert done[-1] == next(total for name, _, total in said if name == stage)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(method="magic"), "Unknown method"),
        (Settings(clusterer="magic"), "Unknown clustering"),
        (Settings(choice="cluster 9"), "no candidate 'cluster 9'"),
    ],
)
def test_unknown_names_are_refused(world: PlantedWorld, sea: ContrastSet, settings: Settings, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find(world.model, world.sae, sea, settings)


def test_two_saes_of_one_site_are_refused(world: PlantedWorld, sea: ContrastSet) -> None:
    with pytest.raises(InputError, match="different sites"):
        find(world.model, [world.sae, world.sae], sea)
