"""One planted world and one contrast for all tests of `find`."""

from __future__ import annotations

import pytest

from trimtab.find.pairs import ContrastSet, Splits
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="session")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture(scope="session")
def sea(world: PlantedWorld) -> ContrastSet:
    return ContrastSet.of(world.texts("sea", 60, seed=1), world.texts(None, 60, seed=2), name="sea", paired=False)


@pytest.fixture(scope="session")
def parts(sea: ContrastSet) -> Splits:
    return sea.split((0.5, 0.25, 0.25))


@pytest.fixture(scope="session")
def noisy(world: PlantedWorld) -> ContrastSet:
    """Every concept on the positive side, 36 texts each, and none on the negative."""
    texts = [text for seed, name in enumerate(world.words) for text in world.texts(name, 36, seed)]
    return ContrastSet.of(texts, world.texts(None, 108, seed=9), name="all", paired=False)
