"""Contrast sets: texts that show a concept beside texts that do not, read from anywhere, split without leakage.

A set is paired (text i of one side shares its situation with text i of the other) or two free lists.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from trimtab.errors import InputError
from trimtab.files import write_file
from trimtab.find.overlap import near_duplicates, normal, partition

MIN_TEXTS = 8


@dataclass(frozen=True)
class ContrastSet:
    """Two sides of a concept. Paired sets have sides of one length; `source` says where the texts came from."""

    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    paired: bool = True
    source: str = "python"

    def __post_init__(self) -> None:
        if self.paired and len(self.positive) != len(self.negative):
            raise InputError(
                f"{self.name}: a paired set needs sides of one length, not {len(self.positive)} positive and "
                f"{len(self.negative)} negative texts. Pass paired=False for two free lists."
            )
        for side in ("positive", "negative"):
            for number, text in enumerate(getattr(self, side), start=1):
                if not isinstance(text, str) or not text.strip():
                    raise InputError(f"{self.name}: {side} text {number} is empty. Every text needs at least one word.")

    @classmethod
    def of(
        cls, positive: Iterable[str], negative: Iterable[str], *, name: str = "contrast", paired: bool | None = None
    ) -> ContrastSet:
        """A checked set from Python lists. `paired` None means: paired when both lists have one length."""
        pos, neg = tuple(positive), tuple(negative)
        made = cls(name, pos, neg, len(pos) == len(neg) if paired is None else paired)
        made.check()
        return made

    @property
    def digest(self) -> str:
        """SHA-256 of the texts and their pairing; the name and source do not count."""
        value = [self.paired, self.positive, self.negative]
        return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()

    def __len__(self) -> int:
        """Number of pairs, or of texts on the shorter side."""
        return min(len(self.positive), len(self.negative))

    def check(self) -> None:
        """Refuse a set that nothing can be learned from: near-empty, one-sided, or the same text on both sides."""
        few, many = sorted((len(self.positive), len(self.negative)))
        counts = f"{len(self.positive)} positive and {len(self.negative)} negative texts"
        if few == 0 or few * 10 < many:
            raise InputError(f"{self.name} is one-sided: {counts}. Both sides need texts, at most 10 times apart.")
        if few < MIN_TEXTS:
            raise InputError(f"{self.name} is nearly empty: {counts}. At least {MIN_TEXTS} a side are needed.")
        shared = {normal(t) for t in self.positive} & {normal(t) for t in self.negative}
        if shared:
            example = sorted(shared)[0]
            raise InputError(f"{self.name}: {len(shared)} texts stand on both sides, such as {example!r}. Remove them.")

    def take(self, n: int, seed: int = 0) -> ContrastSet:
        """A random subset of `n` pairs (or `n` texts of each side), in the order of the set."""
        if not 1 <= n <= len(self):
            raise InputError(f"Cannot take {n} from {self.name}, which has {len(self)}. Valid: 1 to {len(self)}.")
        rng = random.Random(f"take {seed} {n}")
        rows = sorted(rng.sample(range(len(self.positive)), n))
        other = rows if self.paired else sorted(rng.sample(range(len(self.negative)), n))
        return self._only(rows, other)

    def swapped(self) -> ContrastSet:
        """The same set with its sides exchanged."""
        return ContrastSet(f"not {self.name}", self.negative, self.positive, self.paired, self.source)

    def split(self, shares: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0) -> Splits:
        """Seeded train, dev and test parts. Near duplicates stay in one part, so that none leaks across.

        Raises `InputError` when shares are not positive and of sum 1, or a part would come out empty.
        """
        if min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(f"Split shares must be positive and sum to 1, not {shares}.")
        if self.paired:
            texts = [f"{p}\n{n}" for p, n in zip(self.positive, self.negative, strict=True)]
            sides = [(partition(texts, [*self.positive, *self.negative], shares, seed),) * 2]
        else:
            parts = [partition(list(side), list(side), shares, seed) for side in (self.positive, self.negative)]
            sides = [(parts[0], parts[1])]
        made = [self._only(p, n) for p, n in zip(*sides[0], strict=True)]
        for part, name in zip(made, Splits._fields, strict=True):
            if not part.positive or not part.negative:
                raise InputError(f"{self.name} is too small, or too repetitive, to split: the {name} part is empty.")
        return Splits(*made)

    def save(self, path: str | Path) -> None:
        """Write as jsonl that `read` takes back: pairs, or one labelled text a line."""
        if self.paired:
            rows = [{"positive": p, "negative": n} for p, n in zip(self.positive, self.negative, strict=True)]
        else:
            rows = [{"text": t, "label": "positive"} for t in self.positive]
            rows += [{"text": t, "label": "negative"} for t in self.negative]
        with write_file(path) as part:
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    def _only(self, positive: Sequence[int], negative: Sequence[int]) -> ContrastSet:
        pos, neg = (
            tuple(side[i] for i in rows) for side, rows in ((self.positive, positive), (self.negative, negative))
        )
        return ContrastSet(self.name, pos, neg, self.paired, self.source)


class Splits(NamedTuple):
    """Three disjoint parts of one contrast set."""

    train: ContrastSet
    dev: ContrastSet
    test: ContrastSet


class Audit(NamedTuple):
    """What is repeated in a set: exact duplicates and near duplicates within a side, texts given by their index."""

    duplicates: tuple[tuple[str, int, int], ...]
    near: tuple[tuple[str, int, int], ...]

    @property
    def clean(self) -> bool:
        """Whether nothing is repeated."""
        return not (self.duplicates or self.near)


def audit(contrast: ContrastSet) -> Audit:
    """Find repeated texts: equal up to case, spaces and punctuation, or near (see `near_duplicates`)."""
    exact: list[tuple[str, int, int]] = []
    near: list[tuple[str, int, int]] = []
    for side in ("positive", "negative"):
        texts = getattr(contrast, side)
        for i, j in near_duplicates(texts):
            (exact if normal(texts[i]) == normal(texts[j]) else near).append((side, i, j))
    return Audit(tuple(exact), tuple(near))


def leaks(train: ContrastSet, test: ContrastSet) -> list[tuple[str, str]]:
    """Texts of `test` that also stand, exactly or nearly, in `train`, as (train text, test text)."""
    first = [*train.positive, *train.negative]
    both = [*first, *test.positive, *test.negative]
    return [(both[i], both[j]) for i, j in near_duplicates(both) if i < len(first) <= j]
