"""The merged state, and the tables written from it, against brute force over random firings."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Piece, reference, tally  # type: ignore[import-not-found]

from trimtab.errors import FileError
from trimtab.files import write_json
from trimtab.index import state as state_module
from trimtab.index import tables as tables_module
from trimtab.index.events import Events
from trimtab.index.sample import BIN_EDGES, BINS, best, bins
from trimtab.index.spec import IndexSpec
from trimtab.index.state import MAX_SOURCES, OTHER, State, tokens_path
from trimtab.index.store import FORMAT, Index, open_index
from trimtab.index.tables import write_tables

FEATURES, VOCABULARY = 5, 7
STATES: list[Path] = []
SMALL = IndexSpec(top=3, random=2, per_band=2, before=2, after=1, words=3, partners=2, pairs=2, window=2)
# few distinct values, so that ties happen; from far below the lowest bin to above an edge of a band
VALUES = [1e-9, 0.25, float(np.float32(2**0.5)), 1.0, 1.0000001192092896, 3.0, 3.5, 1e7]


@st.composite
def corpora(draw: st.DrawFn) -> list[Piece]:
    fires = st.one_of(
        st.none(), st.dictionaries(st.integers(0, FEATURES - 1), st.sampled_from(VALUES), max_size=FEATURES)
    )
    pieces = []
    for _ in range(draw(st.integers(1, 9))):
        found = draw(st.lists(fires, min_size=1, max_size=6))
        ids = [draw(st.integers(0, VOCABULARY - 1)) for _ in found]
        pieces.append(Piece(ids, found, draw(st.integers(0, 4)), draw(st.sampled_from(["books", "news"]))))
    return [Piece(p.ids, [p.fires[0], *({} if f is None and i % 2 else f for i, f in enumerate(p.fires[1:]))],
                  p.document, p.source) for p in pieces]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where `merged` keeps its states."""
    STATES[:] = [tmp_path_factory.mktemp("states")]


def window(pieces: list[Piece], first: int) -> Events:
    """What `events` would say of some contexts; values are float32 as an SAE gives them."""
    start = np.cumsum([0, *(len(p.ids) for p in pieces)])
    triples = [
        (int(start[c]) + t, feature, value)
        for c, piece in enumerate(pieces)
        for t, fires in enumerate(piece.fires)
        for feature, value in sorted((fires or {}).items())
    ]
    return Events(
        np.array([t for t, _, _ in triples], dtype=np.int64),
        np.array([f for _, f, _ in triples], dtype=np.int64),
        np.array([v for _, _, v in triples], dtype=np.float32),
        np.array([i for p in pieces for i in p.ids]),
        np.array([f is not None for p in pieces for f in p.fires]),
        start,
        np.arange(first, first + len(pieces)),
        np.array([p.document for p in pieces]),
        tuple(p.source for p in pieces),
    )


def merged(pieces: list[Piece], size: int, spec: IndexSpec, restart: set[int]) -> State:
    """All windows of `size` contexts; before those in `restart`, saved to disk and loaded into a new state, after a
    window that was added and lost.
    """
    path = Path(tempfile.mkdtemp(dir=STATES[0])) / "state"
    state = State(spec, FEATURES, VOCABULARY, path)
    for number, first in enumerate(range(0, len(pieces), size)):
        found = window(pieces[first : first + size], first)
        if number in restart:
            state.save({})
            state.add(found)
            state = State(spec, FEATURES, VOCABULARY, path)
            state.restore()
        state.add(found)
    return state


def written(state: State, folder: Path) -> Index:
    write_tables(state, folder, lambda ids: [f"<{i}>" for i in ids])
    about = {"format": FORMAT, "features": FEATURES, "tokens": state.tokens, "sae": "s", "sae_fingerprint": ""}
    write_json(folder / "index.json", about)
    return open_index(folder)


def float32(value: float) -> float:
    return float(np.float32(value))


@settings(max_examples=20, deadline=None)
@given(corpora(), st.integers(1, 4), st.sets(st.integers(0, 8)), st.integers(1, 2), st.integers(0, 3))
def test_every_number_and_example_is_that_of_brute_force(
    pieces: list[Piece], size: int, restart: set[int], per_document: int, seed: int
) -> None:
    spec = SMALL.model_copy(update={"per_document": per_document, "seed": seed, "words": 99, "partners": 99})
    pieces = [
        Piece(p.ids, [f and {i: float32(v) for i, v in f.items()} for f in p.fires], p.document, p.source)
        for p in pieces
    ]
    truth = reference(pieces, spec, FEATURES)
    kept = sum(f is not None for p in pieces for f in p.fires)
    with tempfile.TemporaryDirectory() as folder:
        index = written(merged(pieces, size, spec, restart), Path(folder))
        for number, one in truth.items():
            got = index.feature(number)
            assert (got.count, got.max, got.words_error, got.partners_error) == (one["count"], one["max"], 0, 0)
            assert got.density == one["count"] / max(1, kept)
            assert got.mean == pytest.approx(one["mean"], rel=1e-12)
            shown = {low: n for low, _, n in got.histogram if n}
            assert shown == {2 ** (-20 + i / 4): n for i, n in one["histogram"].items()}
            assert {w.token: w.count for w in got.words} == one["words"]
            assert all(w.text == f"<{w.token}>" for w in got.words)
            assert dict(got.partners) == one["partners"]
            assert dict(got.sources) == one["sources"]
            groups: dict[object, list[dict]] = {}
            for e in got.examples:
                if e.kind == "band":
                    assert e.low is not None
                    assert e.high == pytest.approx(e.low * 2**0.5)
                group = e.kind if e.low is None else ("band", round(2 * (np.log2(e.low) + 20)))
                row = {name: getattr(e, name) for name in one["examples"][group][0]}
                groups.setdefault(group, []).append(row)
            assert groups == one["examples"]


@settings(max_examples=20, deadline=None)
@given(corpora(), st.sets(st.integers(0, 8)))
def test_tallies_are_misra_gries_and_their_error_bounds_hold(pieces: list[Piece], restart: set[int]) -> None:
    pieces = pieces * 4
    state = merged(pieces, SMALL.window, SMALL, restart)
    windows = [
        [
            (feature, token)
            for piece in pieces[first : first + SMALL.window]
            for token, fires in zip(piece.ids, piece.fires, strict=True)
            for feature in fires or {}
        ]
        for first in range(0, len(pieces), SMALL.window)
    ]
    counts, error = tally(windows, SMALL.words, state_module._PRUNE_EVERY)
    true, _ = tally(windows, 10**6, 1)
    feature, token, count = state.words.table()
    found = {(f, t): n for f, t, n in zip(feature.tolist(), token.tolist(), count.tolist(), strict=True)}
    assert found == {(f, t): n for f, items in counts.items() for t, n in items.items()}
    assert state.words.error.tolist() == [error[f] for f in range(FEATURES)]
    for f, items in true.items():
        for t, n in items.items():
            assert found.get((f, t), 0) <= n <= found.get((f, t), 0) + error[f]


def test_the_result_does_not_depend_on_when_candidates_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pieces = [
        Piece(
            draw.integers(0, VOCABULARY, 6).tolist(),
            [{f: float(v) for f, v in enumerate(draw.exponential(size=FEATURES).astype(np.float32)) if v > 0.7}
             for _ in range(6)],
            int(draw.integers(0, 12)),
            "x",
        )
        for _ in range(60)
    ]  # fmt: skip
    late = merged(pieces, 3, SMALL, set())
    monkeypatch.setattr(state_module, "_FOLD", 0)
    early = merged(pieces, 3, SMALL, {5})
    late.sort()
    early.sort()
    for name, column in vars(late.examples).items():
        assert np.array_equal(column, getattr(early.examples, name)), name
    slots = [SMALL.top, SMALL.random] + [SMALL.per_band] * 80
    assert len(late.examples) <= FEATURES * sum(slots)
    assert len(set(late.examples.group.tolist())) > FEATURES * 3


def test_random_examples_are_uniform() -> None:
    """Over seeds, each of 20 firings is drawn equally often (chi-square with 19 degrees of freedom, p = 0.001)."""
    pieces = [Piece([1], [{0: float(1 + i)}], i, "x") for i in range(20)]
    drawn = np.zeros(20)
    for seed in range(300):
        spec = SMALL.model_copy(update={"seed": seed, "random": 4})
        state = merged(pieces, 20, spec, set())
        state.fold()
        slot = state.examples.group % state_module.GROUPS
        np.add.at(drawn, state.examples.document[slot == 1], 1)
    expected = 300 * 4 / 20
    assert drawn.sum() == 1200
    assert ((drawn - expected) ** 2 / expected).sum() < 43.8


def test_sources_beyond_the_limit_are_counted_together() -> None:
    pieces = [Piece([1], [{0: 1.0}], i, f"s{i}") for i in range(MAX_SOURCES + 9)]
    state = merged(pieces, 7, SMALL, {3})
    assert len(state.sources) == MAX_SOURCES + 1
    assert state.sources[-1] == OTHER
    assert state.arrays["source_count"][:, 0].tolist() == [1] * MAX_SOURCES + [9]


def test_examples_are_written_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [Piece([i % 7, 2, 3], [{}, {i % 5: 1.0 + i, 4: 1.0}, {4: 0.5}], i, "x") for i in range(20)]
    whole = written(merged(pieces, 4, SMALL, set()), tmp_path / "whole").query("from examples")
    monkeypatch.setattr(tables_module, "_ROWS_PER_GROUP", 3)
    monkeypatch.setattr(tables_module, "_ROWS_AT_ONCE", 6)
    assert len(whole) > 12
    assert written(merged(pieces, 4, SMALL, set()), tmp_path / "pieces").query("from examples") == whole


def test_example_groups_are_sorted_on_disk(tmp_path: Path) -> None:
    pieces = [Piece([i % 7, 2], [{}, {i % 5: 1.0 + i}], i, "x") for i in range(20)]
    index = written(merged(pieces, 4, SMALL, set()), tmp_path)
    features = [row["feature"] for row in index.query("from examples select feature")]
    assert all(a <= b for a, b in pairwise(features))
    assert [row["seen"] for row in index.query("from tokens order by token")] == [3, 3, 23, 3, 3, 3, 2]


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1, 2, 2**63, 2**64 - 1]), st.integers(0, 2**50))))
def test_the_fast_order_is_that_of_lexsort(rows: list[tuple[int, int, int]]) -> None:
    group, key, document = (np.array([row[i] for row in rows], dtype=t) for i, t in enumerate("qQq"))
    group = group * 70_000  # more than 16 bits
    keep = best(group, key, document, np.full(len(rows), 99), 99)
    assert keep.tolist() == np.lexsort((document, key, group)).tolist()


@given(st.lists(st.floats(width=32, min_value=0, exclude_min=True), min_size=1))
def test_bins_are_those_between_the_edges(values: list[float]) -> None:
    there = np.array([*values, *BIN_EDGES, *np.nextafter(BIN_EDGES, np.float32(0))], dtype=np.float32)
    expected = np.clip(np.searchsorted(BIN_EDGES, there, side="right") - 1, 0, BINS - 1)
    assert np.array_equal(bins(there), expected)


def test_a_build_without_its_tokens_is_refused(tmp_path: Path) -> None:
    state = State(SMALL, FEATURES, VOCABULARY, tmp_path / "state")
    state.add(window([Piece([1, 2], [{0: 1.0}, {}], 0, "x")], 0))
    state.save({})
    tokens_path(state.path).write_bytes(b"1234567")
    with pytest.raises(FileError, match="cannot go on"):
        State(SMALL, FEATURES, VOCABULARY, tmp_path / "state").restore()
