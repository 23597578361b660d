"""Where the two sides differ is found, and nowhere else."""

from __future__ import annotations

import random

import pytest
import torch

from trimtab.errors import InputError
from trimtab.find.contrast import collect
from trimtab.find.pairs import ContrastSet
from trimtab.find.positions import diff_slots, find_positions
from trimtab.testing.planted import PlantedWorld


@pytest.fixture(scope="module")
def fourth() -> ContrastSet:
    """Pairs that differ in their fourth word from the right alone, after starts of different lengths."""
    draw = random.Random(0)
    nouns, sea = ("cat", "dog", "child", "house", "tree"), ("wave", "boat", "harbour", "sailor", "tide")
    starts = ["", "the stone saw ", "a house took the tree . "]
    texts = [
        (start, draw.choice(nouns), draw.choice(sea), draw.choice(nouns)) for start in starts * 10
    ]  # fmt: skip
    sides = [[f"{start}the {word} saw {last} ." for start, word, last in side] for side in (
        [(s, b, c) for s, _, b, c in texts], [(s, a, c) for s, a, _, c in texts]
    )]  # fmt: skip
    return ContrastSet.of(*sides, name="fourth", paired=True)


def test_the_slot_that_differs_stands_out_from_the_right(world: PlantedWorld, fourth: ContrastSet) -> None:
    found = find_positions(world.model, fourth, world.site, "right")
    best = max(zip(found.effect, found.slots, strict=True))[1]
    assert best == -4
    assert -4 in found.matter
    assert all(slot >= -4 for slot in found.matter)  # before the difference there is none
    assert len(found.strip()) == len(found.slots)
    assert found.strip()[found.slots.index(-4)] == "█"


def test_by_diff_the_changed_part_is_slot_zero(world: PlantedWorld, fourth: ContrastSet) -> None:
    found = find_positions(world.model, fourth, world.site, "diff")
    assert max(zip(found.effect, found.slots, strict=True))[1] == 0
    assert 0 in found.matter
    ids = [world.model.encode(text) for text in fourth.positive]
    for row, chosen in zip(ids, found.chosen, strict=False):
        assert chosen[len(row) - 4]
        assert not any(chosen[: len(row) - 4])


def test_from_the_left_nothing_is_shared_when_starts_differ_in_length(world: PlantedWorld, fourth: ContrastSet) -> None:
    found = find_positions(world.model, fourth, world.site, "left")
    assert found.slots[0] == 1
    assert 2 in found.matter  # texts without a start have the word second


def test_labels_without_meaning_matter_nowhere(world: PlantedWorld, sea: ContrastSet) -> None:
    texts = [*sea.positive, *sea.negative]
    for seed in range(4):
        random.Random(seed).shuffle(texts)
        made = ContrastSet.of(texts[:60], texts[60:], paired=False)
        assert find_positions(world.model, made, world.site).matter == ()


def test_slots_of_a_pair() -> None:
    assert diff_slots([1, 2, 3, 4, 5], [1, 2, 9, 9, 4, 5]) == ([None, None, 0, 1, 2], [None, None, 0, 0, 1, 2])
    assert diff_slots([1, 2, 3], [2, 3]) == ([0, 1, 2], [1, 2])
    assert diff_slots([1, 2], [1, 2]) == ([None, None], [None, None])


def test_diff_needs_pairs(world: PlantedWorld, sea: ContrastSet) -> None:
    with pytest.raises(InputError, match="Valid for it: left, right"):
        find_positions(world.model, sea, world.site, "diff")


def test_pooling_at_the_positions_that_matter_sharpens_the_feature(world: PlantedWorld, fourth: ContrastSet) -> None:
    chosen = find_positions(world.model, fourth, world.site, "diff").chosen
    writer = world.concepts["sea"]
    everywhere = collect(world.model, world.sae, fourth)[0].positive.dense([writer])
    there = collect(world.model, world.sae, fourth, chosen=chosen)[0].positive.dense([writer])
    assert float(there.min()) > 1.3 * float(everywhere.max())
    assert torch.isfinite(there).all()
