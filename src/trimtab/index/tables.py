"""The finished state as Parquet parts. The layout is documented in `trimtab.index.store`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
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
_SMALL_ROWS_PER_GROUP, _SMALL_LEVEL = 16_384, 19


def write_tables(state: State, folder: Path, decode: Callable[[list[int]], list[str]]) -> None:
    """Every table of a finished build. `decode` gives the text of each of some tokens."""
    state.sort()
    a = state.arrays
    shown = a["seen"] > 0
    write_parts(folder, "features", _features(state))
    for part, span in enumerate(_spans(state.examples.group // GROUPS)):  # the largest table: a part at a time
        columns = _examples(state, span)
        shown[columns["tokens"].values.to_numpy()] = True
        _write_part(folder, "examples", part, columns)
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
    _write(folder / "tokens.parquet", rows)


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


def _examples(state: State, span: slice) -> dict[str, Any]:
    import pyarrow as pa

    x = state.examples
    group, left, near = x.group[span], x.left[span].astype(np.int64), x.near[span].astype(np.int64)
    slot, length = group % GROUPS, left + 1 + x.right[span]
    tokens = state.texts.tokens()[spread(x.place[span] - left, length)].astype(np.int32)
    begin = int(x.near[: span.start].sum(dtype=np.int64))
    fires = slice(begin, begin + int(near.sum()))
    values = np.zeros(len(tokens), dtype=np.float32)
    values[np.repeat(length.cumsum() - length, near) + x.near_at[fires]] = x.near_value[fires]
    kind = pa.DictionaryArray.from_arrays(pa.array(np.minimum(slot, 2).astype(np.int8)), pa.array(KINDS))
    source = pa.DictionaryArray.from_arrays(pa.array(x.source[span]), pa.array(state.sources or [""]))
    octave, banded = LOWEST + (slot - 2) / 2, slot >= 2
    return {
        "feature": group // GROUPS,
        "kind": kind,
        "low": pa.array(np.exp2(octave).astype(np.float32), mask=~banded),
        "high": pa.array(np.exp2(octave + 0.5).astype(np.float32), mask=~banded),
        "rank": rank(group).astype(np.int16),
        "value": x.value[span],
        "source": source,
        "document": x.document[span],
        "context": x.context[span],
        "position": x.position[span],
        "at": x.left[span],
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
    _write(folder / name / f"{part:05d}.parquet", {**columns, "feature": feature}, small)


def _write(path: Path, table: Any, small: bool = False) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = table if isinstance(table, pa.Table) else pa.table(table)
    with write_file(path) as part:
        pq.write_table(
            table,
            part,
            compression="zstd",
            compression_level=_SMALL_LEVEL if small else None,
            row_group_size=_SMALL_ROWS_PER_GROUP if small else _ROWS_PER_GROUP,
            # The same texts come again and again, which zstd sees in plain numbers and not in packed places in a
            # dictionary.
            use_dictionary=[
                f"{field.name}.list.element" if pa.types.is_list(field.type) else field.name
                for field in table.schema
                if field.name != "tokens"
            ],
        )


def write_table(path: Path, columns: Mapping[str, Any], *, small: bool = False) -> None:
    """One Parquet file, atomically."""
    _write(path, dict(columns), small)
