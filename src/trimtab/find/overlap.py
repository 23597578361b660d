"""Which texts repeat each other, and how to split rows so that repeated texts stay together."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise


def near_duplicates(texts: Sequence[str], threshold: float = 0.7) -> list[tuple[int, int]]:
    """Index pairs i < j whose word-pair sets have a Jaccard similarity of at least `threshold`; 1.0 when equal."""
    grams = [_grams(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    found = []
    for j, mine in enumerate(grams):
        shared = Counter(i for gram in mine for i in holders[gram])
        found += [(i, j) for i, n in shared.items() if n >= threshold * (len(mine) + len(grams[i]) - n)]
        for gram in mine:
            holders[gram].append(j)
    return sorted(found)


def normal(text: str) -> str:
    """Lower-case words of a text, so that spaces, case and punctuation do not tell two texts apart."""
    return " ".join(re.findall(r"[^\W_]+", text.lower())) or text.strip()


def _grams(text: str) -> frozenset[tuple[str, ...]]:
    words = normal(text).split()
    return frozenset(pairwise(words)) or frozenset({tuple(words)})


def partition(
    texts: Sequence[str], parts_of: Sequence[str], shares: tuple[float, float, float], seed: int
) -> list[list[int]]:
    """Row indices of three parts. Rows tied by a near duplicate (among `parts_of`, rows repeating) share a part."""
    n = len(texts)
    leader = list(range(n))

    def root(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    for i, j in near_duplicates(parts_of):
        a, b = sorted((root(i % n), root(j % n)))
        leader[b] = a
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(n):
        groups[root(i)].append(i)
    order = sorted(groups.values())
    random.Random(f"split {seed}").shuffle(order)
    order.sort(key=len, reverse=True)
    parts: list[list[int]] = [[], [], []]
    for group in order:
        lacking = [share * n - len(part) for share, part in zip(shares, parts, strict=True)]
        parts[lacking.index(max(lacking))] += group
    return [sorted(part) for part in parts]
