from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.evidence.dose import mean_kl, strongest_within
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

TEXTS = ["the cat saw a house .", "every dog"]


def test_kl_is_the_written_out_sum(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    total, tokens = 0.0, 0
    for text in TEXTS:
        ids = torch.tensor([world.model.encode(text)])
        p = world.model.hf(ids).logits[0].softmax(-1)
        with world.model.edited(recipe):
            q = world.model.hf(ids).logits[0].softmax(-1)
        for position in range(1, ids.shape[1]):
            total += sum(float(b * (b / a).log()) for a, b in zip(p[position], q[position], strict=True))
            tokens += 1
    assert mean_kl(world.model, [recipe], TEXTS) == pytest.approx([total / tokens], rel=1e-3)


def test_more_strength_moves_more_and_none_moves_nothing(world: PlantedWorld) -> None:
    feature = world.concepts["fire"]
    kls = mean_kl(world.model, [Recipe.add(world.sae, {feature: s}) for s in (0.0, 0.5, 1.0, 2.0)], TEXTS)
    assert kls[0] == pytest.approx(0.0, abs=1e-9)
    assert kls[0] < kls[1] < kls[2] < kls[3]


def test_strongest_within_stops_at_the_first_that_is_over() -> None:
    assert strongest_within((1.0, 2.0, 3.0), (0.1, 0.3, 0.5), 0.4) == 2.0
    assert strongest_within((3.0, 1.0, 2.0), (0.1, 0.1, 0.5), 0.4) == 1.0
    assert strongest_within((1.0, 2.0), (0.5, 0.6), 0.4) is None


def test_refusals(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {1: 1.0})
    with pytest.raises(InputError):
        mean_kl(world.model, [recipe], [])
    with world.model.edited(recipe):
        with pytest.raises(UnsupportedError):
            mean_kl(world.model, [recipe], TEXTS)
        world.model.hf(torch.tensor([world.model.encode("the cat")]))
