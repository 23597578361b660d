from __future__ import annotations

import dataclasses
import math

import numpy
import pytest
import torch

from trimtab.errors import InputError
from trimtab.spec import Scope, Site
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import About, Setting


def test_features_sites_and_repr(make_sae) -> None:
    sae = make_sae(layer=2)
    recipe = (
        Recipe.add(sae, {3: 1.5, numpy.int64(4): -2}, scope=Scope(generated=False))
        + Recipe.add(sae, {3: 0.5}, unit="raw")
        + Recipe.ablate(sae, [7])
        + Recipe.vector(torch.ones(16), "blocks.1.hook_resid_pre", 0.1, unit="norm")
        + Recipe.project(torch.ones(16), 2)
    )
    assert recipe.features == {3: 2.0, 4: -2.0, 7: 0.0}
    assert recipe.sites == (Site(layer=0), Site(layer=2))
    assert repr(recipe) == (
        "Recipe.add(<random-jumprelu-0>, {3: 1.5, 4: -2}, unit='max_act', scope=Scope(generated=False)) + "
        "Recipe.add(<random-jumprelu-0>, {3: 0.5}, unit='raw') + "
        "Recipe.ablate(<random-jumprelu-0>, [7]) + "
        "Recipe.vector(<vector>, 'model.layers.0.output', 0.1, unit='norm') + "
        "Recipe.project(<vector>, 'model.layers.2.output', 0)"
    )
    assert str(recipe) == "a recipe of 3 features and 2 vectors at model.layers.0.output to model.layers.2.output"
    short = Recipe.add(sae, {3: 0.5})
    assert str(short) == repr(short)
    assert repr(Recipe()) == str(Recipe()) == "Recipe()"
    assert Recipe().features == {}


def test_features_of_several_saes_are_kept_apart(make_sae) -> None:
    one, two = make_sae(), make_sae(seed=1)
    recipe = Recipe.add(one, {3: 1.0}) + Recipe.add(two, {3: 2.0})
    assert recipe.features_of(one) == {3: 1.0}
    assert recipe.features_of(two) == {3: 2.0}
    assert recipe.features_of(make_sae(seed=2)) == {}
    with pytest.raises(InputError, match=r"several SAEs.*features_of"):
        _ = recipe.features


def test_multiplying_scales_strengths_and_targets(make_sae) -> None:
    sae = make_sae()
    recipe = Recipe.add(sae, {3: 1.5, 4: -2}) + Recipe.clamp(sae, {5: 3.0}) + Recipe.vector(torch.ones(16), 1, 0.5)
    assert (recipe * 2) == Recipe.add(sae, {3: 3, 4: -4}) + Recipe.clamp(sae, {5: 6}) + Recipe.vector(torch.ones(16), 1)
    assert -recipe == -1 * recipe
    assert (-recipe).features == {3: -1.5, 4: 2.0, 5: -3.0}
    for fixed in (Recipe.scale(sae, {1: 2.0}), Recipe.ablate(sae, [1]), Recipe.project(torch.ones(16), 1)):
        with pytest.raises(InputError, match="no strength to multiply"):
            fixed * 2
    with pytest.raises(InputError, match="finite"):
        recipe * math.inf


def test_the_digest_covers_everything_that_an_edit_does(make_sae) -> None:
    sae, scope, ones = make_sae(), Scope(window=(0, 5)), torch.ones(16)
    different = [
        Recipe(),
        Recipe.add(sae, {3: 1.0}),
        Recipe.add(sae, {3: 1.1}),
        Recipe.add(sae, {4: 1.0}),
        Recipe.add(sae, {3: 1.0}, unit="raw"),
        Recipe.add(sae, {3: 1.0}, scope=scope),
        Recipe.add(make_sae(seed=1), {3: 1.0}),
        Recipe.add(make_sae(layer=0), {3: 1.0}),
        Recipe.clamp(sae, {3: 1.0}),
        Recipe.min(sae, {3: 1.0}),
        Recipe.max(sae, {3: 1.0}),
        Recipe.add(sae, {3: 1.0}) + Recipe.add(sae, {3: 1.0}),
        Recipe.vector(ones, 1),
        Recipe.vector(ones, 2),
        Recipe.vector(2 * ones, 1),
        Recipe.project(ones, 1),
    ]
    assert len({recipe.digest for recipe in different}) == len(different)
    assert len(set(different)) == len(different)
    assert Recipe.add(make_sae(), {3: 1.0}).digest == different[1].digest


def test_the_digest_does_not_change_between_versions() -> None:
    """Renew by hand, together with the file format's number: old recipe files would be refused."""
    recipe = Recipe.vector(torch.arange(4.0), 9, 1.5, scope=Scope(exclude=(3,)))
    assert recipe.digest == "b183dda62199b6f6c48827c0ec281110cc843e4033fa9e5b7774e3e107465442"


def test_where_a_recipe_comes_from_is_not_what_it_does(make_sae) -> None:
    recipe = Recipe.add(make_sae(), {3: 1.0})
    about = About(
        model="m", model_fingerprint="f", settings={"k": Setting(value=3, given=True)}, evidence={"effect": 2}
    )
    told = dataclasses.replace(recipe, about=about)
    assert told == recipe
    assert (told * 2).about.evidence == {}
    assert (told * 2).about.settings == about.settings
    assert (told + recipe).about == (recipe + told).about == About(model="m", model_fingerprint="f")
    assert (told + Recipe()).about == (Recipe() + told).about == about


def test_nothing_is_aliased(make_sae) -> None:
    vector = torch.ones(16)
    recipe = Recipe.vector(vector, 1)
    vector.zero_()
    assert torch.equal(recipe.edits[0].tensors["vector"], torch.ones(16))
    sae = make_sae(seed=11)
    recipe = Recipe.add(sae, {0: 1.0})
    row = sae.W_dec[0].clone()
    sae.W_dec.zero_()
    assert torch.equal(recipe.edits[0].tensors["rows"][0], row)
    with pytest.raises(TypeError):
        recipe.edits[0].tensors["rows"] = row  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.edits = ()  # type: ignore[misc]


def test_half_precision_vectors_are_taken_as_float32() -> None:
    recipe = Recipe.vector(torch.ones(4, dtype=torch.bfloat16, requires_grad=True), 1)
    assert recipe.edits[0].tensors["vector"].dtype == torch.float32
    assert not recipe.edits[0].tensors["vector"].requires_grad


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda sae: Recipe.add(sae, {}), "at least one feature"),
        (lambda sae: Recipe.add(sae, [3]), "at least one feature"),
        (lambda sae: Recipe.ablate(sae, []), "at least one feature"),
        (lambda sae: Recipe.ablate(sae, [3, 3]), "distinct"),
        (lambda sae: Recipe.add(sae, {40: 1.0}), "Feature 40 is out of range.*0 to 39"),
        (lambda sae: Recipe.add(sae, {-1: 1.0}), "Feature -1 is out of range"),
        (lambda sae: Recipe.add(sae, {"3": 1.0}), "whole number, not '3'"),
        (lambda sae: Recipe.add(sae, {3: math.nan}), "strength of feature 3 must be a finite number, not nan"),
        (lambda sae: Recipe.clamp(sae, {3: -math.inf}), "strength of feature 3 must be a finite number, not -inf"),
        (lambda sae: Recipe.scale(sae, {3: "much"}), "strength of feature 3 must be a number, not 'much'"),
        (lambda sae: Recipe.add(sae, {3: 1.0}, unit="inches"), "no unit 'inches'. Valid: 'raw', 'max_act', 'norm'"),
        (lambda sae: Recipe.clamp(sae, {3: 1.0}, unit="norm"), "no unit 'norm'. Valid: 'raw', 'max_act'"),
        (lambda sae: Recipe.vector(torch.ones(16), 1, unit="max_act"), "no unit 'max_act'. Valid: 'raw', 'norm'"),
        (lambda sae: Recipe.vector(torch.ones(16), 1, math.nan), "finite number, not nan"),
        (lambda sae: Recipe.vector(torch.ones(2, 8), 1), r"shape \[d\], not \[2, 8\]"),
        (lambda sae: Recipe.vector(torch.zeros(16), 1), "zero everywhere"),
        (lambda sae: Recipe.vector(torch.tensor([1.0, math.nan]), 1), "not finite"),
        (lambda sae: Recipe.vector("up", 1), "vector of numbers, not str"),
        (lambda sae: Recipe.project(torch.ones(16), "nowhere"), "Unknown site 'nowhere'"),
        (
            lambda sae: Recipe.clamp(sae, {3: 1.0}) + Recipe.clamp(sae, {3: 2.0}),
            "Feature 3 .* both 'clamp' and 'clamp'",
        ),
        (lambda sae: Recipe.min(sae, {3: 1.0}) + Recipe.min(sae, {3: 2.0}), "both 'min' and 'min'"),
        (lambda sae: Recipe.ablate(sae, [3]) + Recipe.max(sae, {3: 2.0}), "both 'ablate' and 'max'"),
    ],
)
def test_bad_arguments_are_named(build, message: str, make_sae) -> None:
    with pytest.raises(InputError, match=message):
        build(make_sae())


def test_max_act_needs_a_measured_maximum(make_sae) -> None:
    with pytest.raises(InputError, match=r"no maximum activations.*unit='raw'"):
        Recipe.add(make_sae(max_act=False), {3: 1.0})
    sae = make_sae()
    dead = dataclasses.replace(sae, max_act=torch.where(torch.arange(40) == 3, 0.0, sae.max_act))
    with pytest.raises(InputError, match=r"Feature 3 .*never fired.*unit='raw'"):
        Recipe.add(dead, {2: 1.0, 3: 1.0})


def test_a_row_of_zeros_has_no_direction(make_sae) -> None:
    sae = make_sae()
    empty = dataclasses.replace(sae, W_dec=sae.W_dec * (torch.arange(40) != 3)[:, None])
    with pytest.raises(InputError, match=r"Feature 3 .*decoder row of zeros"):
        Recipe.add(empty, {3: 1.0}, unit="raw")


def test_one_feature_may_have_two_laws_at_different_tokens(make_sae) -> None:
    sae = make_sae()
    early, late = Scope(window=(0, 5)), Scope(window=(5, None))
    assert len((Recipe.clamp(sae, {3: 1.0}, scope=early) + Recipe.clamp(sae, {3: 2.0}, scope=late)).edits) == 2
    prompt, written = Scope(generated=False), Scope(prompt=False)
    assert len((Recipe.clamp(sae, {3: 1.0}, scope=prompt) + Recipe.ablate(sae, [3], scope=written)).edits) == 2
    with pytest.raises(InputError, match="same tokens"):
        Recipe.clamp(sae, {3: 1.0}, scope=early) + Recipe.clamp(sae, {3: 2.0}, scope=prompt)
