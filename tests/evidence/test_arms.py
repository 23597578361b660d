from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.evidence.arms import control_recipe
from trimtab.lm.residual import read
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld


def change(world: PlantedWorld, recipe: Recipe) -> torch.Tensor:
    """What a recipe changes at the site, [tokens, d]."""
    ids = torch.tensor([world.model.encode("the wave saw a flame . every child liked the song .")])
    plain = read(world.model, ids, [world.site])[world.site]
    with world.model.edited([recipe]):
        return (read(world.model, ids, [world.site])[world.site] - plain)[0]


def recipes(world: PlantedWorld) -> dict[str, Recipe]:
    sae, (a, b) = world.sae, (world.concepts["sea"], world.concepts["fire"])
    return {
        "add": Recipe.add(sae, {a: 1.0, b: -0.7}),
        "raw": Recipe.add(sae, {a: 2.0}, unit="raw"),
        "norm": Recipe.add(sae, {a: 0.3}, unit="norm"),
        "clamp": Recipe.clamp(sae, {a: 1.0, b: 0.2}),
        "vector": Recipe.vector(world.directions["music"], world.site, 3.0),
        "joined": Recipe.add(sae, {a: 1.0}) + Recipe.vector(world.directions["music"], world.site, 3.0),
    }


@pytest.mark.parametrize("kind", ["add", "raw", "norm", "clamp", "vector", "joined"])
def test_the_random_control_has_the_same_size_at_every_token(world: PlantedWorld, kind: str) -> None:
    recipe = recipes(world)[kind]
    own, other = change(world, recipe), change(world, control_recipe("random", recipe, world.sae, 0, 0, 0))
    torch.testing.assert_close(other.norm(dim=-1), own.norm(dim=-1), rtol=1e-4, atol=1e-4)
    moved = own.norm(dim=-1) > 0
    cosine = torch.cosine_similarity(own[moved], other[moved], dim=-1)
    assert moved.any()
    assert cosine.abs().max() < 0.9


def test_random_directions_differ_by_prompt_and_sample_and_repeat_by_seed(world: PlantedWorld) -> None:
    recipe = recipes(world)["add"]
    digests = [
        control_recipe("random", recipe, world.sae, s, p, n).digest for s in (0, 1) for p in (0, 1) for n in (0, 1)
    ]
    assert len(set(digests)) == 8
    assert control_recipe("random", recipe, world.sae, 1, 1, 1).digest == digests[-1]


def test_latent_controls_of_a_mixed_batch_keep_their_own_directions(world: PlantedWorld) -> None:
    recipe = recipes(world)["clamp"]
    rows = [recipe, *(control_recipe("random", recipe, world.sae, 0, 0, n) for n in (0, 1))]
    ids = torch.tensor([world.model.encode("the wave saw a flame .")])
    plain = read(world.model, ids, [world.site])[world.site]
    with world.model.edited(rows):
        together = read(world.model, ids.repeat(3, 1), [world.site])[world.site] - plain
    for row, one in enumerate(rows):
        with world.model.edited([one]):
            alone = read(world.model, ids, [world.site])[world.site] - plain
        torch.testing.assert_close(together[row], alone[0], rtol=1e-4, atol=1e-4)


def test_sign_flipped_is_the_opposite_and_refuses_what_has_none(world: PlantedWorld) -> None:
    recipe = recipes(world)["add"]
    flipped = control_recipe("sign-flipped", recipe, world.sae, 0, 0, 0)
    torch.testing.assert_close(change(world, flipped), -change(world, recipe), rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedError, match="sign-flipped"):
        control_recipe("sign-flipped", Recipe.ablate(world.sae, [1]), world.sae, 0, 0, 0)


def test_matched_features_are_others_that_live_at_a_like_density(world: PlantedWorld) -> None:
    sae = world.sae
    assert sae.density is not None
    feature = world.concepts["sea"]
    for n in range(10):
        made = control_recipe("matched-feature", Recipe.add(sae, {feature: 1.5}), sae, 0, 0, n)
        ((other, strength),) = made.features.items()
        assert other != feature
        assert strength == 1.5
        assert 0.49 < float(sae.density[other] / sae.density[feature]) < 2.01
    with pytest.raises(UnsupportedError, match="densities"):
        control_recipe("matched-feature", Recipe.add(sae, {feature: 1.0}), replace(sae, density=None), 0, 0, 0)


def test_unknown_control() -> None:
    from trimtab.evidence.plan import check_controls

    with pytest.raises(InputError, match="placebo"):
        check_controls(["placebo"])
