from __future__ import annotations

import pytest
import torch

from trimtab.errors import MismatchError, UnsupportedError
from trimtab.evidence.arms import generator_of
from trimtab.evidence.contrast_arms import mean_difference, read_contrast, read_means, shuffled_selection
from trimtab.evidence.plan import Job, plan
from trimtab.find.pairs import ContrastSet
from trimtab.spec import Site
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import About
from trimtab.testing.planted import PlantedWorld


@pytest.fixture(scope="module")
def sea(world: PlantedWorld) -> ContrastSet:
    return ContrastSet.of(world.texts("sea", 24), world.texts(None, 24), name="sea", paired=False)


def test_the_true_labels_select_the_concept_and_shuffled_ones_do_not(world: PlantedWorld, sea: ContrastSet) -> None:
    """The same code on the same texts: only the labels differ."""
    acts = read_contrast(world.model, world.sae, sea)
    own = {world.concepts["sea"], world.readers["sea"]}
    recipe = Recipe.add(world.sae, {0: 1.0, 1: 1.0})
    from trimtab.evidence import contrast_arms

    n = len(acts.positive.residual)
    truth = torch.arange(2 * n) < n
    assert set(contrast_arms._ranked(acts, truth)[:2]) == own
    chosen = [
        set(shuffled_selection(recipe, world.sae, acts, False, generator_of("shuffled", 0, 0, draw)).features)
        for draw in range(40)
    ]
    assert sum(bool(one & own) for one in chosen) < 12  # by chance alone: 40 draws of 2 from 30 features
    assert len({frozenset(one) for one in chosen}) > 10


def test_pairs_are_shuffled_within_themselves(world: PlantedWorld) -> None:
    """With pairs, each side keeps one text of each pair."""
    from trimtab.evidence.contrast_arms import _shuffled_rows

    first = _shuffled_rows(6, 6, True, torch.Generator().manual_seed(1))
    assert (first[:6] ^ first[6:]).all()
    assert 0 < first[:6].sum() < 6
    free = _shuffled_rows(6, 4, False, torch.Generator().manual_seed(1))
    assert free.sum() == 6


def test_a_plain_vector_is_shuffled_to_another_of_its_length(world: PlantedWorld, sea: ContrastSet) -> None:
    acts = read_contrast(world.model, world.sae, sea)
    recipe = Recipe.vector(world.directions["sea"] * 2.5, world.site)
    recipe += Recipe.vector(world.directions["sea"] * 0.5, Site(layer=0))
    means = read_means(world.model, recipe, sea)
    made = shuffled_selection(recipe, world.sae, acts, False, generator_of("shuffled", 0, 0, 0), means)
    for edit, length in zip(made.edits, (2.5, 0.5), strict=True):
        vector = edit.tensors["vector"]
        assert float(vector.norm()) == pytest.approx(length, rel=1e-5)
        assert abs(float(vector @ world.directions["sea"])) < 0.8 * length
    assert [edit.spec.site for edit in made.edits] == [world.site, Site(layer=0)]


def test_the_mean_difference_points_along_the_planted_directions(world: PlantedWorld, sea: ContrastSet) -> None:
    acts = read_contrast(world.model, world.sae, sea)
    up = mean_difference(Recipe.add(world.sae, {1: 1.0}), world.sae, acts).edits[0].tensors["vector"]
    assert float(up @ world.directions["sea"]) > 0.5 * float(up.norm()) * 0.9
    down = mean_difference(Recipe.add(world.sae, {1: -1.0}), world.sae, acts).edits[0].tensors["vector"]
    torch.testing.assert_close(down, -up)


def test_another_set_than_the_recipes_is_refused(world: PlantedWorld, sea: ContrastSet) -> None:
    feature = world.concepts["sea"]
    made = Recipe(Recipe.add(world.sae, {feature: 1.0}).edits, About(contrast=sea.digest))
    other = ContrastSet.of(world.texts("fire", 12), world.texts(None, 12), name="fire", paired=False)
    assert plan(world.model, world.sae, Job(made, contrast=sea), ("shuffled",), 2, 2, 0).arms[2].name == "shuffled"
    with pytest.raises(MismatchError, match="another contrast set"):
        plan(world.model, world.sae, Job(made, contrast=other), ("shuffled",), 2, 2, 0)


@pytest.mark.parametrize(
    ("name", "needs"), [("shuffled", "--pairs"), ("mean-difference", "--pairs"), ("prompt", "--ask")]
)
def test_arms_without_what_they_need_are_refused_or_reported(world: PlantedWorld, name: str, needs: str) -> None:
    job = Job(Recipe.add(world.sae, {world.concepts["sea"]: 1.0}))
    with pytest.raises(UnsupportedError, match=needs):
        plan(world.model, world.sae, job, (name,), 2, 2, 0)
    made = plan(world.model, world.sae, job, None, 2, 2, 0)
    assert needs in made.skipped[name]
    assert name not in [arm.name for arm in made.arms]
