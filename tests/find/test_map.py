"""The map of clusters."""

from __future__ import annotations

import math

import numpy as np

from trimtab.find.cluster import cluster
from trimtab.find.contrast import collect
from trimtab.find.map import coordinates, places
from trimtab.find.pairs import ContrastSet
from trimtab.testing.planted import PlantedWorld


def test_coordinates_keep_distances_that_fit_a_plane() -> None:
    points = np.random.default_rng(0).uniform(0, 0.6, (9, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found = coordinates(1 - distance)
    assert np.allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), distance)
    assert coordinates(np.ones((1, 1))).shape == (1, 2)


def test_every_feature_has_a_place_and_those_that_fire_together_lie_together(
    world: PlantedWorld, noisy: ContrastSet
) -> None:
    acts = collect(world.model, world.sae, noisy)[0]
    features = [*world.concepts.values(), *world.readers.values(), 0, 2]
    found = cluster(world.sae, features, acts, similarity="phi", model=world.model)
    made = places(found, world.sae, acts)
    assert sorted(made) == sorted(features)
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in made.values())
    for concept, writer in world.concepts.items():
        inside = math.dist(made[writer], made[world.readers[concept]])
        outside = [math.dist(made[writer], made[other]) for name, other in world.concepts.items() if name != concept]
        assert inside < 0.2 * min(outside)
    assert places(cluster(world.sae, [], similarity="cosine"), world.sae) == {}
