"""The picture of clusters."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from trimtab.find.cluster import cluster
from trimtab.find.contrast import collect
from trimtab.find.map import cluster_map, coordinates
from trimtab.find.pairs import ContrastSet
from trimtab.testing.planted import PlantedWorld


def test_coordinates_keep_distances_that_fit_a_plane() -> None:
    points = np.random.default_rng(0).uniform(0, 0.6, (9, 2))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    found = coordinates(1 - distance)
    assert np.allclose(np.linalg.norm(found[:, None] - found[None], axis=-1), distance)
    assert coordinates(np.ones((1, 1))).shape == (1, 2)


def test_the_picture_shows_every_feature_once_in_its_clusters_colour(world: PlantedWorld, noisy: ContrastSet) -> None:
    acts = collect(world.model, world.sae, noisy)[0]
    features = [*world.concepts.values(), *world.readers.values(), 0, 2]
    found = cluster(world.sae, features, acts, similarity="phi", model=world.model)
    root = ET.fromstring(cluster_map(found, world.sae, acts, {world.concepts["sea"]: "<sea>"}))
    circles = {int(c[0].text.split()[0]): c for c in root if c.tag.endswith("circle")}  # type: ignore[union-attr]
    assert sorted(circles) == sorted(features)
    assert circles[world.concepts["sea"]][0].text == f"{world.concepts['sea']} <sea>"
    colours = {one.features: {circles[i].get("fill") for i in one.features} for one in found.clusters}
    assert all(len(some) == 1 for some in colours.values())
    assert len({next(iter(some)) for some in colours.values()}) == len(found.clusters)
    inside = [(float(c.get("cx", -1)), float(c.get("cy", -1))) for c in circles.values()]
    assert all(0 < x < 640 and 0 < y < 440 for x, y in inside)
