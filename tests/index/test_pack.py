"""A packed index: what stays is what was there, less of it, and every command reads it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from trimtab.errors import FileError
from trimtab.index.labels import add_rule_labels
from trimtab.index.pack import PackSpec, pack
from trimtab.index.search import find, firing
from trimtab.index.store import Index, open_index
from trimtab.testing.planted import PlantedWorld

SPEC = PackSpec(top=2, random=1, per_band=1, before=5, after=2, words=3, partners=2, lens=4)


@pytest.fixture
def labelled(index: Index, tmp_path: Path) -> Index:
    own = open_index(shutil.copytree(index.folder, tmp_path / "own"))
    add_rule_labels(own)
    return own


def test_what_stays_is_what_was_there(labelled: Index, tmp_path: Path) -> None:
    small = pack(labelled, tmp_path / "small", SPEC)
    assert small.about == {**labelled.about, "packed": SPEC.model_dump()}
    for number in range(labelled.features):
        was, now = labelled.feature(number), small.feature(number)
        for name in ("count", "density", "mean", "max", "histogram", "words_error", "sources", "labels"):
            assert getattr(now, name) == getattr(was, name)
        assert now.words == was.words[:3]
        assert now.partners == was.partners[:2]
        assert now.lens is not None
        assert was.lens is not None
        assert [text for text, _ in now.lens.promoted] == [text for text, _ in was.lens.promoted[:4]]
        assert [v for _, v in now.lens.suppressed] == pytest.approx(
            [v for _, v in was.lens.suppressed[:4]], rel=1 / 256
        )
        assert max(Counter((e.kind, e.low) for e in now.examples).values(), default=0) <= 2
        theirs = {(e.kind, e.low, e.context, e.position): e for e in was.examples}
        for one in now.examples:
            old = theirs[one.kind, one.low, one.context, one.position]
            first = max(0, old.at - 5)
            assert one.tokens == old.tokens[first : old.at + 3]
            assert one.at == old.at - first
            assert one.values == pytest.approx(old.values[first : old.at + 3], rel=1 / 256)
            assert one.value == pytest.approx(old.value, rel=1 / 256)
            assert [v > 0 for v in one.values] == [v > 0 for v in old.values[first : old.at + 3]]
        kinds = [e.kind for e in now.examples]
        assert kinds == sorted(kinds, key=["top", "random", "band"].index)
        for kind in ("top", "random"):
            mine = [e.position for e in now.examples if e.kind == kind]
            assert mine == [e.position for e in was.examples if e.kind == kind][: len(mine)]


def test_it_is_smaller_and_can_be_searched(labelled: Index, world: PlantedWorld, tmp_path: Path) -> None:
    small = pack(labelled, tmp_path / "small", SPEC)
    was, now = (sum(f.stat().st_size for f in one.folder.rglob("*.parquet")) for one in (labelled, small))
    assert now < 0.7 * was
    word = world.words["fire"][0]
    both = {world.concepts["fire"], world.readers["fire"]}
    assert both & {hit.feature for hit in find(small, word, most=2)}
    assert firing(world.model, world.sae, f"the {word} saw", small)[1]
    with pytest.raises(FileError, match="exists"):
        pack(labelled, tmp_path / "small", SPEC)
