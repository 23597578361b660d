from __future__ import annotations

from trimtab.evidence.verify import verify
from trimtab.spec import Scope
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

PROMPTS = ["the cat saw", "a dog"]


def edited(world: PlantedWorld, scope: Scope | None) -> tuple[tuple[int, int], tuple[int, int], float]:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0}, scope=scope)
    found = verify(world.model, world.sae, recipe, PROMPTS, samples=2, max_new_tokens=9, controls=())
    (one,) = found.made.receipt
    return one.prompt_tokens, one.generated_tokens, one.ratio


def test_the_receipt_counts_what_the_scope_selects(world: PlantedWorld) -> None:
    """BOS is left alone; the last token is never read while writing. 3 + 2 words and two BOS, 8 + 8 tokens read."""
    prompt, generated, ratio = edited(world, None)
    assert (prompt, generated) == ((5, 7), (16, 16))
    assert ratio > 0.1
    assert edited(world, Scope(prompt=False))[:2] == ((0, 7), (16, 16))
    assert edited(world, Scope(generated=False))[:2] == ((5, 7), (0, 16))
    assert edited(world, Scope(window=(0, 5)))[:2] == ((5, 7), (3, 16))
