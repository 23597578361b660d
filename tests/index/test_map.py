"""The feature map: planted groups of rows lie together, and nothing but making it needs umap-learn."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from trimtab.errors import InputError, MismatchError, UnsupportedError
from trimtab.index.map import Points, add_map, clusters, layout, names, read_map, write_picture
from trimtab.index.store import Index, open_index
from trimtab.testing.planted import PlantedWorld


@pytest.fixture
def own(index: Index, tmp_path: Path) -> Index:
    return open_index(shutil.copytree(index.folder, tmp_path / "index"))


def test_rows_of_one_group_lie_together_and_the_seed_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 24, generator=generator)
    group = np.arange(100) % 4
    unit = normalize(centres[group] + 0.4 * torch.randn(100, 24, generator=generator), dim=-1)
    place = layout(unit, neighbours=10, seed=3)
    assert place.dtype == np.float32
    assert (place.min(), place.max()) == (0, 1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1) + 9 * np.eye(100)
    assert (group[distance.argmin(1)] == group).all()
    found = clusters(place)
    for cluster in range(found.max() + 1):
        assert len(set(group[found == cluster])) == 1
    assert (found < 0).mean() < 0.5
    assert (layout(unit, neighbours=10, seed=3) == place).all()
    assert not (layout(unit, neighbours=10, seed=4) == place).all()


def test_clusters_are_numbered_from_the_largest() -> None:
    draw = np.random.default_rng(0)
    sizes = {(0.0, 0.0): 20, (9.0, 0.0): 60, (0.0, 9.0): 40}
    place = np.concatenate([draw.normal(at, 0.1, (n, 2)) for at, n in sizes.items()])
    found = clusters(place)
    counts = np.bincount(found[found >= 0])
    assert list(counts) == sorted(counts, reverse=True)
    assert found.min() >= -1


def test_names_are_the_words_that_a_cluster_has_and_others_have_not() -> None:
    labels = ["fire and flame", "the fire", "the sea", "sea, boat and wave", "boat at sea", "the rest"]
    assert names(np.array([1, 1, 0, 0, 0, -1]), labels, most=1) == ["sea", "fire"]
    assert names(np.array([-1, -1]), ["a b", "c"]) == []
    assert names(np.array([0, 0, -1]), ["(never fires) → sea", "(never fires) → sea", "x"]) == ["sea"]


def test_the_map_is_kept_with_the_index(world: PlantedWorld, own: Index, tmp_path: Path) -> None:
    assert read_map(own) is None
    made = add_map(world.sae, own, neighbours=5)
    again = read_map(open_index(own.folder))
    assert again is not None
    for name, column in vars(made).items():
        assert (vars(again)[name] == column).all()
    assert again.feature.tolist() == list(range(own.features))
    add_map(world.sae, own, neighbours=5)
    write_picture(made, ["a $name"], tmp_path / "a.svg", "about")
    write_picture(made, ["a $name"], tmp_path / "b.svg", "about")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert ("a $name" in text) == bool((made.cluster >= 0).any())
    write_picture(made, [], tmp_path / "a.png", "about")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_refusals(world: PlantedWorld, own: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(world.sae, W_dec=world.sae.W_dec * 2)
    with pytest.raises(MismatchError, match="was made with the SAE"):
        add_map(other, own)
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        write_picture(Points(*np.zeros((4, 0))), [], tmp_path / "map.pdf", "")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'trimtab\[map\]'"):
        add_map(world.sae, own)
    assert read_map(own) is None
