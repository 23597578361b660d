"""What a build knows after some windows: bounded, mergeable, and written to one file so that it can go on later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.files import write_file
from trimtab.index.events import Events
from trimtab.index.examples import Examples, spread
from trimtab.index.firings import Firings, pairs
from trimtab.index.sample import (
    BAND,
    BANDS,
    BINS,
    GROUPS,
    RANDOM,
    TOP,
    best,
    bins,
    place_hash,
    random_key,
    rank,
    salts,
    top_key,
)  # fmt: skip
from trimtab.index.spec import IndexSpec
from trimtab.index.tally import Tally
from trimtab.index.tokenfile import TokenFile

_FOLD = 50_000  # candidates that wait before they are merged; when they are merged does not change the result
_PRUNE_EVERY = 4  # windows between prunes of the tallies; fixed, since it decides what a tally keeps
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
MAX_SOURCES = 64
OTHER = "(other sources)"


@dataclass
class State:
    """The merged result of `windows` windows; `add` is the only thing that changes it.

    `path`: where it is saved; the `TokenFile` that grows with it lies beside.
    """

    spec: IndexSpec
    features: int
    vocabulary: int
    path: Path
    windows: int = 0
    contexts: int = 0
    limit: float | None = None
    sources: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    examples: Examples = field(init=False)
    words: Tally = field(init=False)
    partners: Tally = field(init=False)

    def __post_init__(self) -> None:
        n = self.features
        self.arrays = {
            "count": np.zeros(n, np.int64),
            "total": np.zeros(n, np.float64),
            "largest": np.zeros(n, np.float32),
            "histogram": np.zeros((n, BINS), np.int64),
            "seen": np.zeros(self.vocabulary, np.int64),  # how often each token was read
            "source_tokens": np.zeros(0, np.int64),
            "source_count": np.zeros((0, n), np.int64),
        }
        self.examples = Examples.none()
        self._waiting: list[Examples] = []
        self._bar = np.full((GROUPS, n), _NEVER)  # a key above its group's bar cannot be kept
        self._salts = salts(n)
        self.words = Tally(n, self.vocabulary, self.spec.words)
        self.partners = Tally(n, n, self.spec.partners)
        self.texts = TokenFile(tokens_path(self.path))

    @property
    def tokens(self) -> int:
        """Tokens that were read and kept: without BOS and sinks."""
        return int(self.arrays["source_tokens"].sum())

    def add(self, found: Events) -> None:
        """Merge one window."""
        fired = Firings.of(found)
        source = self._sources(found)
        self._count(found, fired, source)
        self._sample(found, fired, source)
        if self.spec.pairs:
            self.partners.add(*pairs(found, self.spec.pairs, self.features))
        self.words.add(fired.feature, found.ids[fired.token])
        self.texts.append(found.ids)
        self.windows += 1
        self.contexts += len(found.number)
        if self.windows % _PRUNE_EVERY == 0:
            self.words.prune()
            self.partners.prune()

    def _count(self, found: Events, fired: Firings, source: np.ndarray) -> None:
        a, n = self.arrays, self.features
        a["count"] += np.bincount(fired.feature, minlength=n)
        a["total"] += np.bincount(fired.feature, fired.value, minlength=n)
        if len(fired.begins):
            present = fired.feature[fired.begins]
            a["largest"][present] = np.maximum(a["largest"][present], np.maximum.reduceat(fired.value, fired.begins))
        np.add.at(a["histogram"].reshape(-1), fired.feature * BINS + bins(fired.value), 1)
        a["seen"] += np.bincount(found.ids[found.kept], minlength=self.vocabulary)
        np.add.at(a["source_tokens"], source[found.context[found.kept]], 1)
        np.add.at(a["source_count"].reshape(-1), source[fired.context] * n + fired.feature, 1)

    def _sources(self, found: Events) -> np.ndarray:
        """The number of each context's source; the first MAX_SOURCES have their own, the rest are one."""
        for name in found.source:
            if name not in self.sources and len(self.sources) <= MAX_SOURCES:
                self.sources.append(name if len(self.sources) < MAX_SOURCES else OTHER)
        new = len(self.sources) - len(self.arrays["source_tokens"])
        for name in ("source_tokens", "source_count") if new else ():
            old = self.arrays[name]
            self.arrays[name] = np.concatenate([old, np.zeros((new, *old.shape[1:]), old.dtype)])
        place = {name: i for i, name in enumerate(self.sources)}
        return np.array([place.get(name, MAX_SOURCES) for name in found.source], dtype=np.int64)

    def _sample(self, found: Events, fired: Firings, source: np.ndarray) -> None:
        """Candidates of every kind that could still be kept, with the text around them."""
        offers = []
        for which, slot, key in self._offers(found, fired):
            hopeful = np.flatnonzero(key <= self._bar[slot, fired.feature[which]])
            slot = np.broadcast_to(slot, len(key))[hopeful]
            which = np.arange(len(fired.feature))[which][hopeful]
            offers.append((which, fired.feature[which] * GROUPS + slot, key[hopeful]))
        which, group, key = (np.concatenate(column) for column in zip(*offers, strict=True))
        keep = best(group, key, found.document[fired.context[which]], self._sizes(group), self.spec.per_document)
        if len(keep):
            self._waiting.append(self._cut_out(found, fired, source, which[keep], group[keep], key[keep]))
        if sum(map(len, self._waiting)) > max(_FOLD, len(self.examples) // 4):
            self.fold()

    def _offers(self, found: Events, fired: Firings) -> Iterator[tuple[Any, Any, np.ndarray]]:
        """(which firings, their slots or the one of all, their keys) for each kind of example."""
        at = np.arange(len(found.ids)) - found.start[found.context]
        place = place_hash(self.spec.seed, found.number[found.context], at)
        if self.spec.random:
            yield slice(None), 1, random_key(place[fired.token], self._salts[RANDOM, fired.feature])
        peak = fired.peaks
        feature, value, place = fired.feature[peak], fired.value[peak], place[fired.token[peak]]
        yield peak, 0, top_key(value, place, self._salts[TOP, feature])
        if self.spec.per_band:
            yield peak, 2 + bins(value) // 2, random_key(place, self._salts[BAND, feature])

    def _sizes(self, group: np.ndarray) -> np.ndarray:
        slots = np.array([self.spec.top, self.spec.random] + [self.spec.per_band] * BANDS)
        return slots[group % GROUPS]

    def _cut_out(
        self, found: Events, fired: Firings, source: np.ndarray, which: np.ndarray, group: np.ndarray, key: np.ndarray
    ) -> Examples:
        """The examples, with what of the text around them is shown and where the feature fires in it."""
        token, feature, context = fired.token[which], fired.feature[which], fired.context[which]
        begin = found.start[context] + ~found.kept[found.start[context]]  # without BOS, or a sink in its place
        first = np.maximum(begin, token - self.spec.before)
        last = np.minimum(found.start[context + 1] - 1, token + self.spec.after)
        known = fired.feature * len(found.ids) + fired.token  # ascending
        near = np.searchsorted(known, feature * len(found.ids) + first)
        size = np.searchsorted(known, feature * len(found.ids) + last, side="right") - near
        flat = spread(near, size)
        return Examples.of(
            {
                "group": group,
                "key": key,
                "document": found.document[context],
                "context": found.number[context],
                "position": token - found.start[context],
                "source": source[context],
                "value": fired.value[which],
                "place": token + self.texts.length,
                "left": token - first,
                "right": last - token,
                "near": size,
                "near_at": fired.token[flat] - np.repeat(first, size),
                "near_value": fired.value[flat],
            }
        )

    def fold(self) -> None:
        """Merge the waiting candidates. Only groups that have some can change."""
        if not self._waiting:
            return
        parts = [self.examples, *self._waiting]
        self.examples, self._waiting = Examples.none(), []
        group, key, document = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("group", "key", "document")
        )
        touched = np.zeros(self.features * GROUPS, dtype=bool)
        touched[group[len(parts[0]) :]] = True
        some = np.flatnonzero(touched[group])
        keep = some[best(group[some], key[some], document[some], self._sizes(group[some]), self.spec.per_document)]
        self._raise_bars(group[keep], key[keep])
        stays = ~touched[group]
        stays[keep] = True
        self.examples = Examples.chosen(parts, np.flatnonzero(stays))

    def _raise_bars(self, group: np.ndarray, key: np.ndarray) -> None:
        """For groups as they are now, in order of (group, key)."""
        worst = rank(group) == self._sizes(group) - 1  # the group is full; this is the last one that it has room for
        self._bar[group[worst] % GROUPS, group[worst] // GROUPS] = key[worst]

    def sort(self) -> None:
        """Merge what waits, and put the examples in order of (group, key)."""
        self.fold()
        order = np.lexsort((self.examples.key, self.examples.group))
        parts = [self.examples]
        self.examples = Examples.none()
        self.examples = Examples.chosen(parts, order)

    def save(self, about: dict[str, Any]) -> None:
        """Write everything to `path`, one safetensors file, and have its tokens on the disk before; `about` is
        for `saved_about`.
        """
        from safetensors.numpy import save_file

        self.fold()
        arrays = dict(self.arrays)
        arrays |= {f"examples.{name}": column for name, column in vars(self.examples).items()}
        for name, tally in (("words", self.words), ("partners", self.partners)):
            tally.settle()
            arrays |= {f"{name}.{part}": getattr(tally, part) for part in ("keys", "counts", "error")}
        facts = {name: getattr(self, name) for name in ("windows", "contexts", "limit", "sources")}
        facts["stored_tokens"] = self.texts.length
        self.texts.flush()
        with write_file(self.path) as part:
            save_file(arrays, part, metadata={"state": json.dumps(facts), "about": json.dumps(about, sort_keys=True)})

    def restore(self) -> None:
        """Take over what `save` wrote to `path`."""
        from safetensors import safe_open

        with safe_open(self.path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            facts = json.loads(file.metadata()["state"])
        self.texts = TokenFile(tokens_path(self.path), facts.pop("stored_tokens"))
        self.texts.check()
        for name, value in facts.items():
            setattr(self, name, value)
        self.arrays = {name: arrays[name] for name in self.arrays}
        self.examples = Examples(**{name: arrays[f"examples.{name}"] for name in vars(self.examples)})
        for name, tally in (("words", self.words), ("partners", self.partners)):
            for part in ("keys", "counts", "error"):
                setattr(tally, part, arrays[f"{name}.{part}"])
        self.sort()
        self._raise_bars(self.examples.group, self.examples.key)


def tokens_path(state: Path) -> Path:
    """The file of tokens beside that of a state."""
    return state.with_suffix(".tokens")


def saved_about(path: Path) -> dict[str, Any]:
    """The `about` that a state was saved with."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return dict(json.loads(file.metadata()["about"]))
