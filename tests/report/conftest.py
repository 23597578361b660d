from __future__ import annotations

from typing import Any

import pytest

from trimtab.evidence.verify import verify
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import planted_world


@pytest.fixture(scope="session")
def evidence() -> dict[str, Any]:
    """The JSON form of a small verification."""
    world = planted_world(0)
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    return verify(world.model, world.sae, recipe, ["the cat saw", "a dog"], samples=3, max_new_tokens=16).as_dict()
