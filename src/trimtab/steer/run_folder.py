"""The folder of a sweep or of a corpus: its manifest and its parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from trimtab.errors import FileError, MismatchError
from trimtab.files import read_json, write_file
from trimtab.steer.grid import SweepSpec

FORMAT = 1


@dataclass(frozen=True)
class Kind:
    """What a folder holds: `name` for people and for the manifest, `columns` of its parts (Arrow's names of types)."""

    name: str
    columns: dict[str, str]

    @property
    def manifest(self) -> str:
        """The manifest's file name."""
        return f"{self.name}.json"


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

    folder: Path
    spec: SweepSpec
    done: int
    rows: int

    def texts(self) -> Iterator[dict[str, Any]]:
        """Every row in order, as a dict: row, op, feature, strength, prompt, seed, text, token_ids, ..."""
        return read_rows(self.folder)


def open_run(folder: str | PathLike[str]) -> Run:
    """A sweep's folder, complete or not. Raises `FileError` when there is none."""
    manifest = read_manifest(Path(folder), SWEEP)
    if manifest is None:
        raise FileError(f"{folder} holds no sweep: there is no {SWEEP.manifest}.")
    spec = SweepSpec.parse(manifest["spec"])
    return Run(Path(folder), spec, count_rows(Path(folder)), spec.n_rows)


def read_manifest(folder: Path, kind: Kind) -> dict[str, Any] | None:
    """What the folder holds, None when there is nothing yet. Raises `FileError` for a folder of another kind."""
    path = folder / kind.manifest
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
            raise FileError(
                f"{folder} exists and is not a {kind.name}'s folder (it has no {kind.manifest}); choose another."
            )
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise FileError(f"{path} is not a {kind.name}'s manifest that this version reads (format {FORMAT}).")
    return found


def refuse_another(folder: Path, kind: Kind, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise `MismatchError` with everything that differs between the folder's manifest and the one wanted now."""
    was, now = _flat(found), _flat(wanted)
    differ = [key for key in {**was, **now} if was.get(key) != now.get(key) and not key.endswith("name")]
    if differ:
        lines = "; ".join(f"{key}: {was.get(key)!r} there, {now.get(key)!r} now" for key in differ)
        raise MismatchError(
            f"{folder} holds another {kind.name} ({lines}). Ask for the same again to go on with it, "
            "or choose another folder."
        )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, one in value.items():
        out.update(_flat(one, f"{prefix}{key}.") if isinstance(one, dict) else {prefix + key: one})
    return out


def part_name(part: int) -> str:
    """The file name of a part."""
    return f"rows-{part:05d}.parquet"


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Every row of every part, in order."""
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("rows-*.parquet")):
        yield from pq.read_table(path).to_pylist()


def count_rows(folder: Path) -> int:
    """How many rows the parts have together."""
    return sum(map(rows_of, sorted(folder.glob("rows-*.parquet"))))


def rows_of(path: Path) -> int:
    """How many rows a part has; -1 when it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return -1


def write_part(path: Path, kind: Kind, records: list[dict[str, Any]]) -> None:
    """Write the rows of one part, completely or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"list": pa.list_(pa.int32())}
    schema = pa.schema([(name, types.get(of) or pa.type_for_alias(of)) for name, of in kind.columns.items()])
    with write_file(path) as part:
        pq.write_table(pa.Table.from_pylist(records, schema), part, compression="zstd")
