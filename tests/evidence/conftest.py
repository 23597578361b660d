from __future__ import annotations

import pytest

from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="session")
def world() -> PlantedWorld:
    return planted_world(0)
