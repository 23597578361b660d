"""A folder of files that are there completely or not at all: on this machine, or wherever fsspec reaches.

    open_store("runs/first")             a folder
    open_store("s3://bucket/runs/first") an object store: s3, gs, az, through obstore (extra `scale`), which takes
                                         address and keys from the usual variables (AWS_ENDPOINT_URL, ...)
    open_store("memory://first")         any other protocol of fsspec

A file of a local folder, and of other file systems, is written beside its place and renamed; an object store shows an
object when its upload is complete.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError, StorageError, UnsupportedError
from trimtab.files import write_file

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_OBJECT_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "abfs"}
_WHOLE_OBJECTS = {*_OBJECT_STORES, "memory"}  # what is being written cannot be seen

PATIENCE = 30.0
"""Seconds that an object store which does not answer is waited for: it may be starting again."""

_BEGUN = re.compile(r"\..+\.[a-z0-9_]{8}")  # as `trimtab.files.write_file` names them


@dataclass(frozen=True)
class Store:
    """A folder. `address` is a local path or has a protocol, such as s3://bucket/folder. Names are relative to it."""

    address: str

    @property
    def local(self) -> Path | None:
        """The folder on this machine, None when it is elsewhere."""
        return None if self.protocol else Path(self.address)

    @property
    def protocol(self) -> str:
        """Such as s3; empty for a local folder."""
        return self.address.partition("://")[0] if "://" in self.address else ""

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: str) -> Store:
        return Store(f"{self.address.rstrip('/')}/{name}")

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `FileError` when it is not there."""
        with _errors(self / name, writing=False):
            if self.local:
                return (self.local / name).read_bytes()
            return bytes(self._fs.cat_file(self._path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Put a file in place. Raises `StorageError` when that cannot be done; the old content is then still there."""
        if self.local:
            with write_file(self.local / name) as part:
                part.write_bytes(content)
            return
        with _errors(self / name, writing=True):
            path = self._path(name)
            if self.protocol in _WHOLE_OBJECTS:
                self._fs.pipe_file(path, content)
                return
            beside = str(PurePosixPath(path).with_name(f".{PurePosixPath(path).name}.{os.getpid()}"))
            self._fs.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
            self._fs.pipe_file(beside, content)
            self._fs.mv(beside, path)

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""
        with _errors(self / name, writing=True):
            if self.local:
                (self.local / name).unlink(missing_ok=True)
            elif self.exists(name):
                self._fs.rm_file(self._path(name))

    def tidy(self, *folders: str) -> None:
        """Remove what processes that were killed had begun to write into some folders: nothing but hidden files."""
        for folder in folders if self.local else ():
            assert self.local is not None
            for path in (self.local / folder).glob(".*"):
                if path.is_file() and _BEGUN.fullmatch(path.name):
                    path.unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        if self.local:
            return (self.local / name).is_file()
        with _errors(self / name, writing=False):
            try:
                return bool(self._fs.info(self._path(name))["type"] == "file")
            except FileNotFoundError:  # fsspec's own `isfile` takes a server that does not answer for an absent file
                return False

    def names(self, pattern: str = "*") -> list[str]:
        """The files that fit, in order, in one folder. Files that are being written do not count."""
        folder, _, last = pattern.rpartition("/")
        if self.local:
            inside = self.local / folder
            found = [path.name for path in inside.iterdir() if path.is_file()] if inside.is_dir() else []
        else:
            found = self._listed(folder, "file")
        chosen = sorted(name for name in found if not name.startswith(".") and fnmatch.fnmatch(name, last))
        return [f"{folder}/{name}" if folder else name for name in chosen]

    def folders(self) -> list[str]:
        """The folders in it, in order."""
        if self.local:
            return sorted(path.name for path in self.local.iterdir() if path.is_dir()) if self.local.is_dir() else []
        return sorted(self._listed("", "directory"))

    def _listed(self, folder: str, kind: str) -> list[str]:
        with _errors(self, writing=False):
            try:
                found = self._fs.ls(self._path(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return [PurePosixPath(one["name"]).name for one in found if one["type"] == kind]

    def write_json(self, name: str, value: Any) -> None:
        """Put a JSON file in place; NaN and infinity are refused by the encoder."""
        self.write(name, json_bytes(value))

    def read_json(self, name: str) -> Any:
        """What a JSON file holds. Raises `FileError` when it is missing or damaged."""
        try:
            return json.loads(self.read(name))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"{self / name} is not a JSON file: {error}") from None

    @property
    def _fs(self) -> AbstractFileSystem:
        return _filesystem(self.protocol)

    def _path(self, name: str) -> str:
        path = self.address.partition("://")[2].rstrip("/")
        return f"{path}/{name}" if name else path


def open_store(folder: str | os.PathLike[str] | Store) -> Store:
    """The store at an address; nothing is written or read yet. Raises `UnsupportedError` for an unknown protocol."""
    if isinstance(folder, Store):
        return folder
    address = os.fspath(folder)
    if "://" not in address:
        return Store(str(Path(address).expanduser().absolute()))
    store = Store(address)
    store._fs  # noqa: B018 (said now, not after an hour)
    return store


def json_bytes(value: Any) -> bytes:
    """What a JSON file of a value holds."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def local_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder of this machine. Raises `UnsupportedError` for an address, which a `Path` would take for a name."""
    if re.match(r"\w\w+:/", os.fspath(folder)):
        raise UnsupportedError(
            f"{folder}: training and its activations need a local folder, with workers elsewhere a disk that all have."
        )
    return Path(folder)


@lru_cache
def _filesystem(protocol: str) -> AbstractFileSystem:
    try:
        if protocol in _OBJECT_STORES:
            from datetime import timedelta

            from obstore.fsspec import FsspecStore

            pause = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2}
            often = 10_000  # so that it is the time that decides
            retry: Any = {"max_retries": often, "retry_timeout": timedelta(seconds=PATIENCE), "backoff": pause}
            kind = _OBJECT_STORES[protocol]
            # Files are removed one by one, which servers that are like S3 can do more often than many at once.
            config: Any = {"disable_bulk_delete": True} if kind == "s3" else None
            return FsspecStore(kind, config=config, retry_config=retry)
        import fsspec

        return fsspec.filesystem(protocol)
    except ImportError as error:
        more = " (pip install 'trimtab[scale]')" if protocol in _OBJECT_STORES else ""
        raise UnsupportedError(f"{protocol}:// needs a library that is not installed{more}: {error}") from None
    except ValueError as error:
        raise UnsupportedError(f"{protocol}:// is not a place that trimtab can write to: {error}") from None


@contextmanager
def _errors(what: Store, *, writing: bool) -> Iterator[None]:
    """Errors of a file system in one sentence. Each library has its own kinds, so every kind is meant."""
    try:
        yield
    except FileNotFoundError:
        raise FileError(f"No such file: {what}") from None
    except Exception as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        done = "written" if writing else "read"
        raise StorageError(
            f"{what} cannot be {done}: {said}. When that is mended, the same command goes on."
        ) from error
