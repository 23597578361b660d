"""A build on many machines: windows are read by workers and merged here, in their order, so the bytes are the same.

What fires in a window is a part of the run folder until the state that has it is saved. A build that was killed goes on
from its last saved state and merges the parts that are there, without reading their texts again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.index.events import Events, events
from trimtab.index.state import State
from trimtab.lm.packed import packed_layers
from trimtab.lm.texts import Context
from trimtab.sae.firing import finder
from trimtab.scale.folder import RunFolder
from trimtab.scale.run import On, Say, run_units
from trimtab.scale.unit import Do, Part, Tell, Unit

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

_COLUMNS = {
    "token": np.int32, "feature": np.int32, "value": np.float32, "ids": np.int32, "kept": np.bool_,
    "start": np.int64, "number": np.int64, "document": np.int64,
}  # fmt: skip
_WIDE = ("token", "feature", "ids")  # int64 in memory


@dataclass(frozen=True, eq=False)
class Reader:
    """What a worker holds. The work of a unit is (number of its first context, contexts, sink limit)."""

    model: Model
    sae: SAE

    @contextmanager
    def open(self) -> Iterator[Do]:
        """Pack the model's layers and prepare the screen, once."""
        find = finder(self.sae)
        with packed_layers(self.model):

            def do(unit: Unit, _tell: Tell) -> Part:
                first, window, limit = unit.work
                found, _ = events(self.model, self.sae, window, first, limit, find)
                return Part({_file(unit.id): to_bytes(found)}, {"tokens": int(found.kept.sum())})

            yield do


def merge(
    reader: Reader,
    windows: Iterator[list[Context]],
    state: State,
    folder: RunFolder,
    on: On,
    save: Callable[[], None],
    save_every: float,
    say: Say,
) -> Generator[tuple[int, float]]:
    """Merge all windows that are left, in order; after each, (tokens kept so far, share of the texts' bytes read).

    The first window of all is read here: it says what a sink is. To stop early, close the iterator.
    """
    _forget(folder, state.contexts)
    if state.limit is None:
        window = next(windows, None)
        if window is None:
            return
        with packed_layers(reader.model):
            found, state.limit = events(reader.model, reader.sae, window, 0, None)
        state.add(found)
        yield state.tokens, window[-1].read
    saved = time.monotonic()
    with closing(run_units(reader.open, _units(windows, state.contexts, state.limit), folder, on, say=say)) as doing:
        for done in doing:
            state.add(from_bytes(folder.store.read(_file(done.unit.id))))
            if time.monotonic() - saved >= save_every:
                save()
                _forget(folder, state.contexts)
                saved = time.monotonic()
            yield state.tokens, done.unit.work[1][-1].read


def _units(windows: Iterator[list[Context]], first: int, limit: float) -> Iterator[Unit]:
    for window in windows:
        yield Unit(f"window-{first:012d}", (first, window, limit))
        first += len(window)


def _file(unit: str) -> str:
    return f"windows/{unit}.safetensors"


def _forget(folder: RunFolder, merged: int) -> None:
    """Remove the windows that a saved state has: those whose contexts are before `merged`."""
    for name in (*folder.store.names("ledger/window-*.json"), *folder.store.names("windows/*")):
        if int(name.partition("window-")[2].partition(".")[0]) < merged:
            folder.store.remove(name)


def forget_all(folder: RunFolder) -> None:
    """Remove every window: the index is finished."""
    _forget(folder, 1 << 62)


def to_bytes(found: Events) -> bytes:
    """What fires in a window, as a safetensors file."""
    from safetensors.numpy import save

    columns = {name: getattr(found, name).astype(kind) for name, kind in _COLUMNS.items()}
    return bytes(save(columns, metadata={"source": json.dumps(found.source)}))


def from_bytes(content: bytes) -> Events:
    """What `to_bytes` wrote."""
    from safetensors.numpy import load

    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length])["__metadata__"]
    columns: dict[str, Any] = load(content)
    columns |= {name: columns[name].astype(np.int64) for name in _WIDE}
    return Events(**columns, source=tuple(json.loads(about["source"])))
