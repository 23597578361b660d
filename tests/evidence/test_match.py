from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.evidence import match
from trimtab.evidence.arms import control_recipe
from trimtab.evidence.plan import Job, plan
from trimtab.evidence.verify import verify
from trimtab.find.pairs import ContrastSet
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model
from trimtab.testing.planted import PlantedWorld


@pytest.fixture(autouse=True)
def own_texts(world: PlantedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neutral texts that the planted model has words for."""
    monkeypatch.setattr(match, "NEUTRAL", tuple(world.texts(None, 16, seed=5)))


def test_every_draw_is_brought_to_the_recipes_cost(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 0.5})
    draws = [control_recipe("random", recipe, world.sae, 0, p, 0) for p in range(8)]
    weak = [draw * 0.1 for draw in draws]
    found, again = match.at_same_cost(world.model, recipe, draws), match.at_same_cost(world.model, recipe, weak)
    assert found.reached
    assert found.kl == pytest.approx(match.cost_of(world.model, recipe), rel=0.1)
    for one, other, k in zip(found.factors, again.factors, range(8), strict=True):
        assert other == pytest.approx(10 * one, rel=0.15), k
    for part in range(match.GROUPS):
        ids = match.neutral_ids(world.model)[part :: match.GROUPS]
        wanted, *costs = match._costs(world.model, [recipe, *found.recipes[part :: match.GROUPS]], ids).tolist()
        assert all(abs(cost - wanted) < 0.11 * wanted for cost in costs)


def test_a_recipe_that_does_nothing_has_controls_that_are_left_alone(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {1: 0.0})
    found = match.at_same_cost(world.model, recipe, [control_recipe("random", recipe, world.sae, 0, 0, 0)])
    assert (found.kl, found.wanted, found.factors) == (0.0, 0.0, ())
    assert found.reached


def test_what_cannot_reach_the_cost_says_so(world: PlantedWorld) -> None:
    """A word in front of the text moves this model's predictions in it very little; ablation has no strength."""
    strong = Recipe.add(world.sae, {world.concepts["sea"]: 3.0})
    made = plan(world.model, world.sae, Job(strong, ask="the cat"), ("prompt",), 2, 2, 0)
    prompt = made.arms[2]
    assert prompt.kl is not None
    assert 0 < prompt.kl < 0.1 * (made.arms[1].kl or 0)
    assert prompt.reached is False
    ablated = Recipe.ablate(world.sae, [world.concepts["sea"]])
    other = plan(world.model, world.sae, Job(ablated), ("random",), 2, 2, 0).arms[2]
    assert other.factor is None


def test_draws_belong_to_prompts_and_samples(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    arm = plan(world.model, world.sae, Job(recipe), ("random",), 3, 5, 0).arms[2]
    rows = [[arm.recipe(p, s) for s in range(5)] for p in range(3)]
    assert all(row[0] == row[2] == row[4] and row[1] == row[3] and row[0] != row[1] for row in rows)
    assert len({one.digest for row in rows for one in row if one is not None}) == 6


def test_asked_for_in_words_is_read_without_the_words(world: PlantedWorld) -> None:
    """The words stand before the prompt when the text is written, and nowhere else: all arms are read alike."""
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    contrast = ContrastSet.of(world.texts("sea", 10), world.texts(None, 10), name="sea", paired=False)
    evidence = verify(
        world.model, world.sae, recipe, ["the cat saw", "a dog"], samples=3, max_new_tokens=12,
        controls=("prompt",), contrast=contrast, ask="a wave a tide a boat",
    )  # fmt: skip
    own, asked = ([s for s in evidence.samples if s.arm == arm] for arm in ("unsteered", "prompt"))
    assert [s.token_ids[: -len(s.tokens)] for s in own] == [s.token_ids[: -len(s.tokens)] for s in asked]
    assert [s.token_ids for s in own] != [s.token_ids for s in asked]
    assert (evidence.made.ask, evidence.made.contrast) == ("a wave a tide a boat", contrast.digest)


def test_short_contexts_are_enough() -> None:
    """Neutral texts are cut to what a model can read."""
    model = replace(tiny_model("gpt2", d_model=16, context=24))
    assert {len(ids) for ids in match.neutral_ids(model)} == {24}
