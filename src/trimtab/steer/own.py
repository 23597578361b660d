"""Texts that a model writes itself, on which the cost of steering it is measured.

A recipe is at work while the model writes, so the texts that count are the model's own. The beginnings of the neutral
texts (`PROMPT_TOKENS` tokens each) are continued once, unsteered and at temperature 1, and kept.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from trimtab.errors import FileError, StorageError
from trimtab.files import cache_dir, read_json, write_json
from trimtab.lm.reading import refuse_edited
from trimtab.steer.dose_texts import NEW_TOKENS, write
from trimtab.steer.kl import PROMPT_TOKENS
from trimtab.steer.neutral import NEUTRAL

if TYPE_CHECKING:
    from pathlib import Path

    from trimtab.lm.model import Model

_known: WeakKeyDictionary[Model, tuple[str, ...]] = WeakKeyDictionary()


def own_texts(model: Model) -> tuple[str, ...]:
    """One text for each of `NEUTRAL`: its beginning, and `NEW_TOKENS` tokens of the model's own (fewer where it ends).

    Written when they are first asked for and kept in the cache folder, by the model's fingerprint: the same texts
    however many rows or threads later work has. Raises `UnsupportedError` inside `model.edited` when they must be
    written.
    """
    if model not in _known:
        _known[model] = _read(_path(model)) or _write(model)
    return _known[model]


def _path(model: Model) -> Path:
    asked = json.dumps([PROMPT_TOKENS, NEW_TOKENS, NEUTRAL])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return cache_dir() / "own-texts" / f"{model.fingerprint}-{digest}.json"


def _read(path: Path) -> tuple[str, ...] | None:
    """The texts that are kept; None when there are none, or a damaged file."""
    try:
        texts = read_json(path)
    except (FileError, OSError):
        return None
    good = isinstance(texts, list) and len(texts) == len(NEUTRAL) and all(isinstance(t, str) and t for t in texts)
    return tuple(texts) if good else None


def _write(model: Model) -> tuple[str, ...]:
    refuse_edited(model)
    _, written = write(model, [None], NEUTRAL)
    texts = tuple(model.decode(ids) for ids in written)
    with suppress(StorageError):  # a folder that cannot be written costs the next process some seconds, no more
        write_json(_path(model), texts)
    return texts
