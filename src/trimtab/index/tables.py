"""The finished state as Parquet parts. The layout is documented in `trimtab.index.store`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.files import write_file
from trimtab.index.examples import spread
from trimtab.index.sample import BINS, GROUPS, KINDS, LOWEST, rank
from trimtab.index.state import State

if TYPE_CHECKING:
    import pyarrow as pa

FEATURES_PER_PART = 4096
_ROWS_PER_GROUP = 4096  # what is read from disk for one feature
_ROWS_AT_ONCE = 8 * _ROWS_PER_GROUP
_SMALL_ROWS_PER_GROUP, _SMALL_LEVEL = 16_384, 19


def write_tables(state: State, folder: Path, decode: Callable[[list[int]], list[str]]) -> None:
    """Every table of a finished build. `decode` gives the text of each of some tokens."""
    state.sort()
    a = state.arrays
    shown = a["seen"] > 0
    write_parts(folder, "features", _features(state))
    for part, span in enumerate(_spans(state.examples.group // GROUPS)):
        pieces = (_noted(piece, shown) for piece in _examples(state, span))
        _write(_path(folder, "examples", part), pieces)
    for name, tally, column in (("words", state.words, "token"), ("partners", state.partners, "other")):
        tally.settle()
        for part, span in enumerate(_spans(tally.keys // tally.items)):
            feature, item, count = tally.table(span)
            _write_part(folder, name, part, {"feature": feature, column: item.astype(np.int32), "count": count})
    source, feature = np.nonzero(a["source_count"])
    order = np.lexsort((source, feature))
    source, feature = source[order], feature[order]
    names = np.array(state.sources, dtype=object)
    shares = {"feature": feature, "source": names[source], "count": a["source_count"][source, feature]}
    write_parts(folder, "sources", shares)
    used = np.flatnonzero(shown)
    rows = {"token": used.astype(np.int32), "text": decode(used.tolist()), "seen": a["seen"][used]}
    _write(folder / "tokens.parquet", [rows])


def _features(state: State) -> dict[str, Any]:
    a = state.arrays
    fired = a["count"] > 0
    histogram = a["histogram"]
    first = np.where(fired, (histogram > 0).argmax(1), 0)
    stop = np.where(fired, BINS - (histogram[:, ::-1] > 0).argmax(1), 0)
    inside = (np.arange(BINS) >= first[:, None]) & (np.arange(BINS) < stop[:, None])
    return {
        "feature": np.arange(state.features),
        "count": a["count"],
        "density": a["count"] / max(1, state.tokens),
        "mean": a["total"] / np.maximum(1, a["count"]),
        "max": a["largest"],
        "first_bin": first.astype(np.int16),
        "histogram": _lists(histogram[inside], stop - first),
        "words_error": state.words.error,
        "partners_error": state.partners.error,
    }


def _examples(state: State, span: slice) -> Iterator[dict[str, Any]]:
    """The examples of one file, some thousands at a time, so that however many there are they take the same memory."""
    nth = rank(state.examples.group[span]).astype(np.int16)
    for begin in range(span.start, max(span.stop, span.start + 1), _ROWS_AT_ONCE):
        rows = slice(begin, min(begin + _ROWS_AT_ONCE, span.stop))
        yield _some_examples(state, rows, nth[rows.start - span.start : rows.stop - span.start])


def _noted(examples: dict[str, Any], shown: np.ndarray) -> dict[str, Any]:
    shown[examples["tokens"].values.to_numpy()] = True
    return examples


def _some_examples(state: State, rows: slice, nth: np.ndarray) -> dict[str, Any]:
    import pyarrow as pa

    x = state.examples
    group, left, near = x.group[rows], x.left[rows].astype(np.int64), x.near[rows].astype(np.int64)
    slot, length = group % GROUPS, left + 1 + x.right[rows]
    tokens = state.texts.tokens()[spread(x.place[rows] - left, length)].astype(np.int32)
    begin = int(x.near[: rows.start].sum(dtype=np.int64))
    fires = slice(begin, begin + int(near.sum()))
    values = np.zeros(len(tokens), dtype=np.float32)
    values[np.repeat(length.cumsum() - length, near) + x.near_at[fires]] = x.near_value[fires]
    octave, banded = LOWEST + (slot - 2) / 2, slot >= 2
    return {
        "feature": (group // GROUPS).astype(np.int32),
        "kind": pa.DictionaryArray.from_arrays(pa.array(np.minimum(slot, 2).astype(np.int8)), pa.array(KINDS)),
        "low": pa.array(np.exp2(octave).astype(np.float32), mask=~banded),
        "high": pa.array(np.exp2(octave + 0.5).astype(np.float32), mask=~banded),
        "rank": nth,
        "value": x.value[rows],
        "source": pa.DictionaryArray.from_arrays(pa.array(x.source[rows]), pa.array(state.sources or [""])),
        "document": x.document[rows],
        "context": x.context[rows],
        "position": x.position[rows],
        "at": x.left[rows],
        "tokens": _lists(tokens, length),
        "values": _lists(values, length),
    }


def _lists(flat: np.ndarray, lengths: np.ndarray) -> pa.Array:
    import pyarrow as pa

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def write_parts(folder: Path, name: str, columns: Mapping[str, Any], *, small: bool = False) -> None:
    """A table in order of its `feature` column (int32 on disk), one file for every 4,096 features.

    `small`: as few bytes as can be, for a longer time of writing.
    """
    for part, rows in enumerate(_spans(np.asarray(columns["feature"]))):
        _write_part(folder, name, part, {key: column[rows] for key, column in columns.items()}, small)


def _spans(feature: np.ndarray) -> list[slice]:
    """The rows of each file, for an ascending column of features; at least one file."""
    last = int(feature[-1]) // FEATURES_PER_PART if len(feature) else 0
    edges = np.searchsorted(feature, np.arange(last + 2) * FEATURES_PER_PART)
    return [slice(int(begin), int(end)) for begin, end in itertools.pairwise(edges)]


def _write_part(folder: Path, name: str, part: int, columns: Mapping[str, Any], small: bool = False) -> None:
    feature = np.asarray(columns["feature"]).astype(np.int32)
    _write(_path(folder, name, part), [{**columns, "feature": feature}], small)


def _path(folder: Path, name: str, part: int) -> Path:
    return folder / name / f"{part:05d}.parquet"


def _write(path: Path, pieces: Iterable[Mapping[str, Any]], small: bool = False) -> None:
    """One file of a table that comes in pieces, all but the last of a multiple of the rows of a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        part = stack.enter_context(write_file(path))
        writer = None
        for piece in pieces:
            table = pa.table(dict(piece))
            if writer is None:
                options = {"compression": "zstd", "compression_level": _SMALL_LEVEL if small else None}
                # The same texts come again and again, which zstd sees in plain numbers and not in packed places in a
                # dictionary.
                packed = [_leaf(field) for field in table.schema if field.name != "tokens"]
                writer = pq.ParquetWriter(part, table.schema, use_dictionary=packed, **options)
                stack.enter_context(writer)
            writer.write_table(table, row_group_size=_SMALL_ROWS_PER_GROUP if small else _ROWS_PER_GROUP)


def _leaf(field: pa.Field) -> str:
    import pyarrow as pa

    return f"{field.name}.list.element" if pa.types.is_list(field.type) else str(field.name)


def write_table(path: Path, columns: Mapping[str, Any], *, small: bool = False) -> None:
    """One Parquet file, atomically."""
    _write(path, [columns], small)
