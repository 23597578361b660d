"""A run folder: what was asked, what is done, and a log of how.

    run.json         the manifest: format, kind, spec, what it was made of, versions, the command
    ledger/ID.json   a unit that is done: its files with their sizes and SHA-256, and facts
    log/*.jsonl      one file each time the run was begun or gone on with
    ...              the parts themselves

A part is put in place before its entry in the ledger is, so what the ledger names is complete. Everything but the log
depends only on what was asked: two folders of the same run are the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trimtab.errors import FileError, MismatchError
from trimtab.scale.store import Store
from trimtab.scale.unit import Part

FORMAT = "trimtab.run/1"
MANIFEST = "run.json"
_MAY_DIFFER = ("versions", "command", "added")
_PACKAGES = ("trimtab", "torch", "transformers", "numpy", "pyarrow")

COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("COMMAND", default=None)
"""The words of the command that runs, for manifests; `trimtab runs resume` says them again. None: run from Python."""


@dataclass(frozen=True)
class Entry:
    """A unit that is done. `files`: (bytes, SHA-256) of each."""

    unit: str
    files: Mapping[str, tuple[int, str]]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """The run in a store. `kind` names what is run, for people and for the manifest."""

    store: Store
    kind: str

    def manifest(self) -> dict[str, Any] | None:
        """The manifest, None when nothing is there yet. Raises `FileError` for a folder of another kind."""
        if not self.store.exists(MANIFEST):
            if (self.store.local and self.store.local.is_file()) or self.store.names() or self.store.folders():
                raise FileError(f"{self.store} exists and is not a {self.kind}'s folder (it has no {MANIFEST}).")
            return None
        found = read_manifest(self.store)
        if found["kind"] != self.kind:
            raise FileError(f"{self.store} is not a {self.kind}'s folder: it holds a {found['kind']}. Choose another.")
        return found

    def begin(self, wanted: Mapping[str, Any], grows: Mapping[str, dict[str, Any]] = {}) -> list[str]:
        """Write the manifest, or see that it is the same; notes on what differs without being another run.

        `grows`: values of the manifest that later calls may add to, but not change; the commands that did are kept.
        Raises `MismatchError` with every difference when the folder holds another run.
        """
        manifest = {"format": FORMAT, "kind": self.kind, **wanted, **grows, "versions": versions()}
        if COMMAND.get() is not None:
            manifest["command"] = list(COMMAND.get() or ())
        found = self.manifest()
        if found is None:
            self.store.write_json(MANIFEST, manifest)
            return []
        there = {key: found.get(key, {}) for key in grows}
        same = {key: {name: grows[key].get(name, value) for name, value in there[key].items()} for key in grows}
        refuse_another(self.store, found, {**manifest, **same})
        if any(grows[key].keys() - there[key].keys() for key in grows):
            added = [*found.get("added", []), *([manifest["command"]] if "command" in manifest else [])]
            grown = {key: there[key] | grows[key] for key in grows}
            self.store.write_json(MANIFEST, {**found, **grown, "added": added})
        was, now = found["versions"], manifest["versions"]
        return [
            f"{self.store} was begun with {name} {was.get(name)}, this is {now.get(name)}: what is added may differ "
            "in the last digits."
            for name in sorted({*was, *now})
            if was.get(name) != now.get(name)
        ]

    def entries(self) -> dict[str, Entry]:
        """The ledger. An entry that cannot be read is no entry: its unit is done again."""
        found = {}
        for name in self.store.names("ledger/*.json"):
            try:
                entry = self.store.read_json(name)
                files = {file: (int(size), str(digest)) for file, (size, digest) in entry["files"].items()}
                found[entry["unit"]] = Entry(entry["unit"], files, entry["facts"])
            except (FileError, KeyError, TypeError, ValueError, AttributeError):
                continue
        return found

    def keep(self, unit: str, part: Part) -> Entry:
        """Put the files of a unit in place, and then its entry."""
        for name, content in part.files.items():
            self.store.write(name, content)
        return self._enter(unit, part.files, part.facts)

    def note(self, unit: str, names: Iterable[str], facts: Mapping[str, Any]) -> Entry:
        """Enter files that are in place already."""
        return self._enter(unit, {name: self.store.read(name) for name in names}, facts)

    def _enter(self, unit: str, contents: Mapping[str, bytes], facts: Mapping[str, Any]) -> Entry:
        files = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents.items()}
        self.store.write_json(f"ledger/{unit}.json", {"unit": unit, "files": files, "facts": dict(facts)})
        return Entry(unit, files, facts)

    def wrong(self, entry: Entry) -> list[str]:
        """What is wrong with the files of a unit, in words; nothing is the usual answer."""
        found = []
        for name, (size, digest) in entry.files.items():
            if not self.store.exists(name):
                found.append(f"{name} is missing")
                continue
            content = self.store.read(name)
            if len(content) != size:
                found.append(f"{name} is damaged ({len(content)} bytes, not {size})")
            elif hashlib.sha256(content).hexdigest() != digest:
                found.append(f"{name} is damaged (its checksum is another)")
        return found


def read_manifest(store: Store) -> dict[str, Any]:
    """The manifest of any kind of run. Raises `FileError` when the folder is not a run or of another format."""
    found = store.read_json(MANIFEST)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("kind"), str):
        raise FileError(f"{store / MANIFEST} is not the manifest of a run that this version reads ({FORMAT}).")
    return found


def refuse_another(store: Store, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `MismatchError` with everything that differs between the manifest there and the one wanted now.

    Names may differ: what they name has a fingerprint.
    """
    was, now = (_flat({k: v for k, v in one.items() if k not in _MAY_DIFFER}) for one in (found, wanted))
    differ = [key for key in {**was, **now} if was.get(key) != now.get(key) and not key.endswith("name")]
    if differ:
        lines = "; ".join(f"{key}: {was.get(key)!r} there, {now.get(key)!r} now" for key in differ)
        raise MismatchError(
            f"{store} holds another {found['kind']} ({lines}). Ask for the same again to go on with it, "
            "or choose another folder."
        )


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, one in value.items():
        out.update(_flat(one, f"{prefix}{key}.") if isinstance(one, dict) else {prefix + key: one})
    return out


def versions() -> dict[str, str]:
    """Of what could change a result."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def pace(store: Store) -> float | None:
    """Seconds for each unit so far, by the logs, beginnings included; None where none was done."""
    seconds, units = 0.0, 0
    for name in store.names("log/*.jsonl"):
        lines = [json.loads(line) for line in store.read(name).decode().splitlines()]
        times = [line["time"] for line in lines if line["what"] == "done"]
        units += len(times)
        seconds += times[-1] - lines[0]["time"] if times else 0.0
    return seconds / units if units else None


@dataclass
class Log:
    """Lines of JSON about one stretch of a run, written now and then, since not all file systems can append."""

    store: Store
    every: float = 5.0
    _lines: list[str] = field(default_factory=list)
    _name: str = ""
    _written: float = 0.0

    def say(self, what: str, **about: Any) -> None:
        """Note that something happened."""
        if not self._name:
            now = time.time()
            when = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{now % 1:.6f}"[2:]
            self._name = f"log/{when}-{socket.gethostname()}-{os.getpid()}.jsonl"
        line = {"time": round(time.time(), 3), "what": what, **about}
        self._lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        if time.monotonic() - self._written >= self.every:
            self.flush()

    def flush(self) -> None:
        """Write what has been said."""
        if self._lines:
            self.store.write(self._name, "".join(self._lines).encode())
            self._written = time.monotonic()
