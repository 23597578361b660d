"""What a build knows after some windows: bounded, mergeable, and written to one file so that it can go on later."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from trimtab.files import write_file
from trimtab.index.events import Events
from trimtab.index.sample import (
    BAND,
    BANDS,
    BINS,
    GROUPS,
    RANDOM,
    best,
    bins,
    place_hash,
    random_key,
    rank,
    top_key,
)  # fmt: skip
from trimtab.index.tally import Tally
from trimtab.spec import Spec

_FOLD = 50_000  # candidates that wait before they are merged; when they are merged does not change the result
_PRUNE_EVERY = 4  # windows between prunes of the tallies; fixed, since it decides what a tally keeps
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
MAX_SOURCES = 64
OTHER = "(other sources)"


class IndexSpec(Spec):
    """What an index holds. `top`, `random` and `per_band` are examples of each feature; an example is the firing token
    with `before` and `after` tokens around it. `words` and `partners` are how many tokens and features are counted
    for each feature; pairs are counted among the `pairs` strongest features of each token.
    """

    context: Annotated[int, Field(ge=8)] = 128
    tokens: Annotated[int, Field(ge=1)] | None = None
    field: str = "text"
    top: Annotated[int, Field(ge=1)] = 20
    random: Annotated[int, Field(ge=0)] = 10
    per_band: Annotated[int, Field(ge=0)] = 4
    per_document: Annotated[int, Field(ge=1)] = 1
    before: Annotated[int, Field(ge=0)] = 24
    after: Annotated[int, Field(ge=0)] = 8
    words: Annotated[int, Field(ge=1)] = 128
    partners: Annotated[int, Field(ge=1)] = 64
    pairs: Annotated[int, Field(ge=0)] = 8
    window: Annotated[int, Field(ge=1)] = 256
    seed: int = 0


@dataclass(frozen=True)
class Examples:
    """Examples as columns. `group` is feature * GROUPS + slot; `tokens` and `values` [n, before + 1 + after], -1 and 0
    where the context ends.
    """

    group: np.ndarray
    key: np.ndarray
    document: np.ndarray
    context: np.ndarray
    position: np.ndarray
    source: np.ndarray
    value: np.ndarray
    tokens: np.ndarray
    values: np.ndarray

    def __getitem__(self, which: slice) -> Examples:
        return Examples(**{name: column[which] for name, column in vars(self).items()})

    def __len__(self) -> int:
        return len(self.group)

    @staticmethod
    def chosen(parts: list[Examples], which: np.ndarray) -> Examples:
        """The rows `which` of all rows of `parts`; `parts` is emptied, so that no column is in memory three times."""
        columns = [dict(vars(part)) for part in parts]
        names = list(columns[0])
        parts.clear()
        return Examples(**{name: np.concatenate([one.pop(name) for one in columns])[which] for name in names})

    @staticmethod
    def none(width: int) -> Examples:
        """No rows."""

        def empty(kind: Any, *shape: int) -> np.ndarray:
            return np.zeros((0, *shape), dtype=kind)

        return Examples(
            empty(np.int64), empty(np.uint64), empty(np.int64), empty(np.int64), empty(np.int32), empty(np.int16),
            empty(np.float32), empty(np.int32, width), empty(np.float32, width),
        )  # fmt: skip


@dataclass
class State:
    """The merged result of `windows` windows; `add` is the only thing that changes it."""

    spec: IndexSpec
    features: int
    vocabulary: int
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
        self.examples = Examples.none(self.spec.before + 1 + self.spec.after)
        self._waiting: list[Examples] = []
        self._bar = np.full(n * GROUPS, _NEVER)  # a key above its group's bar cannot be kept
        self.words = Tally(n, self.vocabulary, self.spec.words)
        self.partners = Tally(n, n, self.spec.partners)

    @property
    def tokens(self) -> int:
        """Tokens that were read and kept: without BOS and sinks."""
        return int(self.arrays["source_tokens"].sum())

    def add(self, found: Events) -> None:
        """Merge one window."""
        self._count(found)
        self._sample(found)
        if self.spec.pairs:
            self.partners.add(*_pairs(found, self.spec.pairs))
        self.words.add(found.feature, found.ids[found.token])
        self.windows += 1
        self.contexts += len(found.number)
        if self.windows % _PRUNE_EVERY == 0:
            self.words.prune()
            self.partners.prune()

    def _count(self, found: Events) -> None:
        a = self.arrays
        np.add.at(a["count"], found.feature, 1)
        np.add.at(a["total"], found.feature, found.value.astype(np.float64))
        np.maximum.at(a["largest"], found.feature, found.value)
        np.add.at(a["histogram"], (found.feature, bins(found.value)), 1)
        np.add.at(a["seen"], found.ids[found.kept], 1)
        source = self._sources(found)
        np.add.at(a["source_tokens"], source[found.context[found.kept]], 1)
        np.add.at(a["source_count"], (source[found.context[found.token]], found.feature), 1)

    def _sources(self, found: Events) -> np.ndarray:
        """The number of each context's source; the first MAX_SOURCES have their own, the rest are one."""
        for name in found.source:
            if name not in self.sources and len(self.sources) <= MAX_SOURCES:
                self.sources.append(name if len(self.sources) < MAX_SOURCES else OTHER)
        new = len(self.sources) - len(self.arrays["source_tokens"])
        for name in ("source_tokens", "source_count"):
            old = self.arrays[name]
            self.arrays[name] = np.concatenate([old, np.zeros((new, *old.shape[1:]), old.dtype)])
        place = {name: i for i, name in enumerate(self.sources)}
        return np.array([place.get(name, MAX_SOURCES) for name in found.source], dtype=np.int64)

    def _sample(self, found: Events) -> None:
        """Candidates of every kind that could still be kept, with the text around them."""
        context = found.context[found.token]
        position = found.token - found.start[context]
        place = place_hash(self.spec.seed, found.number[context], position)
        every = np.arange(len(found.token))
        peak = _peaks(found, context)
        first = found.feature * GROUPS
        offers = [(peak, first[peak], top_key(found.value[peak], place[peak], found.feature[peak]))]
        if self.spec.random:
            offers.append((every, first + 1, random_key(place, found.feature, RANDOM)))
        if self.spec.per_band:
            slot = 2 + bins(found.value[peak]) // 2
            offers.append((peak, first[peak] + slot, random_key(place[peak], found.feature[peak], BAND)))
        which, group, key = (np.concatenate(column) for column in zip(*offers, strict=True))
        hopeful = key <= self._bar[group]
        which, group, key = which[hopeful], group[hopeful], key[hopeful]
        keep = best(group, key, found.document[context[which]], self._sizes(group), self.spec.per_document)
        if len(keep):
            self._waiting.append(self._cut_out(found, which[keep], group[keep], key[keep]))
        if sum(map(len, self._waiting)) > max(_FOLD, len(self.examples) // 4):
            self.fold()

    def _sizes(self, group: np.ndarray) -> np.ndarray:
        slots = np.array([self.spec.top, self.spec.random] + [self.spec.per_band] * BANDS)
        return slots[group % GROUPS]

    def _cut_out(self, found: Events, which: np.ndarray, group: np.ndarray, key: np.ndarray) -> Examples:
        """The examples with the tokens around them and the feature's activation on each."""
        token, feature = found.token[which], found.feature[which]
        context = found.context[token]
        begin = found.start[context] + ~found.kept[found.start[context]]  # without BOS, or a sink in its place
        around = token[:, None] + np.arange(-self.spec.before, self.spec.after + 1)
        inside = (around >= begin[:, None]) & (around < found.start[context + 1][:, None])
        around = np.where(inside, around, 0)
        known = found.token * self.features + found.feature  # ascending
        wanted = around * self.features + feature[:, None]
        at = np.minimum(np.searchsorted(known, wanted), max(0, len(known) - 1))
        fires = inside & (known[at] == wanted)
        return Examples(
            group=group,
            key=key,
            document=found.document[context],
            context=found.number[context],
            position=(token - found.start[context]).astype(np.int32),
            source=self._sources(found)[context].astype(np.int16),
            value=found.value[which],
            tokens=np.where(inside, found.ids[around], -1).astype(np.int32),
            values=np.where(fires, found.value[at], 0).astype(np.float32),
        )

    def fold(self) -> None:
        """Merge the waiting candidates."""
        if not self._waiting:
            return
        parts = [self.examples, *self._waiting]
        self.examples, self._waiting = Examples.none(self.spec.before + 1 + self.spec.after), []
        group, key, document = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("group", "key", "document")
        )
        keep = best(group, key, document, self._sizes(group), self.spec.per_document)
        self.examples = Examples.chosen(parts, keep)
        self._raise_bars()

    def _raise_bars(self) -> None:
        kept = self.examples
        last = rank(kept.group) == self._sizes(kept.group) - 1  # the group is full; this is its worst
        self._bar[kept.group[last]] = kept.key[last]

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """Write everything to one safetensors file; `about` is checked when it is loaded again."""
        from safetensors.numpy import save_file

        self.fold()
        arrays = dict(self.arrays)
        arrays |= {f"examples.{name}": column for name, column in vars(self.examples).items()}
        for name, tally in (("words", self.words), ("partners", self.partners)):
            arrays |= {f"{name}.{part}": getattr(tally, part) for part in ("keys", "counts", "error")}
        facts = {name: getattr(self, name) for name in ("windows", "contexts", "limit", "sources")}
        with write_file(path) as part:
            save_file(arrays, part, metadata={"state": json.dumps(facts), "about": json.dumps(about, sort_keys=True)})

    def restore(self, path: Path) -> dict[str, Any]:
        """Take over what `save` wrote; returns its `about`."""
        from safetensors import safe_open

        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            facts = file.metadata()
        for name, value in json.loads(facts["state"]).items():
            setattr(self, name, value)
        self.arrays = {name: arrays[name] for name in self.arrays}
        self.examples = Examples(**{name: arrays[f"examples.{name}"] for name in vars(self.examples)})
        for name, tally in (("words", self.words), ("partners", self.partners)):
            for part in ("keys", "counts", "error"):
                setattr(tally, part, arrays[f"{name}.{part}"])
        self._raise_bars()
        return dict(json.loads(facts["about"]))


def _peaks(found: Events, context: np.ndarray) -> np.ndarray:
    """Where each feature is strongest in each context (the first such token), as indices of events."""
    pair = found.feature * len(found.number) + context
    order = np.argsort(pair, kind="stable")
    if not len(order):
        return order
    new = np.flatnonzero(np.diff(pair[order], prepend=-1))
    size = np.diff(np.append(new, len(order)))
    highest = np.repeat(np.maximum.reduceat(found.value[order], new), size)
    at = np.flatnonzero(found.value[order] == highest)
    _, first = np.unique(pair[order[at]], return_index=True)
    return order[at[first]]


def _pairs(found: Events, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Every ordered pair of features among the `most` strongest of each token (ties: lower index first)."""
    bits = np.ascontiguousarray(found.value).view(np.uint32).astype(np.uint64)
    key = (found.token.astype(np.uint64) << np.uint64(32)) | (np.uint64(0xFFFFFFFF) - bits)
    order = np.argsort(key, kind="stable")
    token = found.token[order]
    place = rank(token)
    few = place < most
    rows, row = np.unique(token[few], return_inverse=True)
    table = np.full((len(rows), most), -1, dtype=np.int64)
    table[row, place[few]] = found.feature[order[few]]
    left, right = np.where(~np.eye(most, dtype=bool))
    a, b = table[:, left].ravel(), table[:, right].ravel()
    both = (a >= 0) & (b >= 0)
    return a[both], b[both]
