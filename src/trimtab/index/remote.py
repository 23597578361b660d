"""An index that is kept on an object store, such as s3://bucket/index.

DuckDB reads files of this machine, and a build appends to one and maps it. So an index elsewhere has a copy in the
cache: what a build writes goes there when it is whole, and what is opened is fetched once. The store has the truth.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path

from trimtab.errors import FileError
from trimtab.files import cache_dir, write_file, write_folder
from trimtab.scale.folder import RunFolder
from trimtab.scale.store import Store

KIND = "index"
ABOUT = "index.json"
STATE = "state.safetensors"
TOKENS = "state.tokens"
TABLES = (
    *(f"{name}/*.parquet" for name in ("features", "examples", "words", "partners", "sources")),
    "tokens.parquet",
)
ADDED = ("lens/*.parquet", "labels.parquet", "map.parquet")
"""Tables that are added to a finished index, and may be written again."""

_BYTES = 4  # of a token


def copy_of(place: Store) -> Path:
    """The folder of this machine in which an index is worked on: its own, or one in the cache."""
    return place.local or cache_dir() / "indexes" / hashlib.sha256(place.address.encode()).hexdigest()[:16]


def fetch(place: Store) -> Path:
    """The copy of a finished index, as it is now. Raises `FileError` when a table is damaged."""
    folder = copy_of(place)
    if place.local:
        return folder
    about, mine = place.read(ABOUT), folder / ABOUT
    if not mine.is_file() or mine.read_bytes() != about:
        run = RunFolder(place, KIND)
        wrong = [line for entry in run.entries().values() for line in run.wrong(entry)]
        if wrong:
            raise FileError(f"{', '.join(wrong)} in {place}: build the index again.")
        shutil.rmtree(folder, ignore_errors=True)
        with write_folder(folder) as part:
            for name in (*(name for pattern in TABLES for name in place.names(pattern)), ABOUT):
                _put(part / name, place.read(name))
    for pattern in ADDED:
        for name in place.names(pattern):
            _put(folder / name, place.read(name))
    return folder


def publish(folder: Path, place: Store, patterns: Iterable[str]) -> None:
    """Put tables of a copy where the index is kept; an index of this machine has them already."""
    if not place.local:
        for name in (name for pattern in patterns for name in Store(str(folder)).names(pattern)):
            place.write(name, (folder / name).read_bytes())


def pull_state(place: Store) -> Path:
    """An empty copy for a build, but for the state that was saved, if any. An index of this machine is as it is."""
    folder = copy_of(place)
    if place.local:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if place.exists(f"state/{STATE}"):
        with write_file(folder / TOKENS) as part, part.open("wb") as file:
            for name in place.names("state/tokens-*"):
                file.seek(int(name.rpartition("-")[2]) * _BYTES)
                file.write(place.read(name))
        _put(folder / STATE, place.read(f"state/{STATE}"))
    return folder


def push_state(place: Store, first: int, length: int) -> None:
    """Keep the state that the copy has: tokens from `first` to `length`, which are new, and then all else."""
    if place.local:
        return
    folder = copy_of(place)
    if length > first:
        with (folder / TOKENS).open("rb") as file:
            file.seek(first * _BYTES)
            place.write(f"state/tokens-{first:015d}", file.read((length - first) * _BYTES))
    place.write(f"state/{STATE}", (folder / STATE).read_bytes())


def _put(path: Path, content: bytes) -> None:
    with write_file(path) as part:
        part.write_bytes(content)
