"""The rows of a sweep or of a corpus: what their parts hold, and how they are read again."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

from trimtab.errors import FileError
from trimtab.scale.folder import MANIFEST, RunFolder
from trimtab.scale.store import Store, open_store
from trimtab.steer.grid import SweepSpec


@dataclass(frozen=True)
class Kind:
    """What a folder holds: `name` for people and for the manifest, `columns` of its parts (Arrow's names of types)."""

    name: str
    columns: dict[str, str]

    def folder(self, address: str | PathLike[str] | Store) -> RunFolder:
        """The run folder of this kind at an address, which need not be there yet."""
        return RunFolder(open_store(address), self.name)


_TEXT = {"prompt": "string", "seed": "int64", "text": "string", "token_ids": "list", "generated_from": "int32"}
SWEEP = Kind(
    "sweep",
    {"row": "int64", "op": "string", "feature": "int64", "strength": "float64", **_TEXT, "finished": "string"},
)
CORPUS = Kind(
    "corpus",
    {"row": "int64", "source": "string", "sample": "int64", **_TEXT, "finished": "string", "model": "string"},
)


@dataclass(frozen=True)
class Run:
    """A sweep's folder: how many rows it has and should have. `texts()` reads them."""

    folder: Store
    spec: SweepSpec
    done: int
    rows: int

    def texts(self) -> Iterator[dict[str, Any]]:
        """Every row in order, as a dict: row, op, feature, strength, prompt, seed, text, token_ids, ..."""
        return read_rows(self.folder)


def open_run(folder: str | PathLike[str] | Store) -> Run:
    """A sweep's folder, complete or not. Raises `FileError` when there is none."""
    there = SWEEP.folder(folder)
    manifest = there.manifest()
    if manifest is None:
        raise FileError(f"{folder} holds no sweep: there is no {MANIFEST}.")
    spec = SweepSpec.parse(manifest["spec"])
    done = sum(entry.facts.get("rows", 0) for entry in there.entries().values())
    return Run(there.store, spec, done, spec.n_rows)


def part_name(unit: str) -> str:
    """The file name of a unit's rows."""
    return f"{unit}.parquet"


def parts_of(folder: Store) -> list[str]:
    """The parts with rows, in order."""
    return folder.names("rows-*.parquet")


def read_part(folder: Store, name: str) -> list[dict[str, Any]]:
    """The rows of one part, or of another Parquet file in the folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(folder.read(name))).to_pylist()
    return rows


def read_rows(folder: str | PathLike[str] | Store) -> Iterator[dict[str, Any]]:
    """Every row of every part, in order."""
    store = open_store(folder)
    for name in parts_of(store):
        yield from read_part(store, name)


def table_bytes(kind: Kind, records: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"list": pa.list_(pa.int32()), "floats": pa.list_(pa.float32())}
    schema = pa.schema([(name, types.get(of) or pa.type_for_alias(of)) for name, of in kind.columns.items()])
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records, schema), file, compression="zstd")
    return file.getvalue()
