"""Counts of (feature, item) pairs in bounded space, after Misra and Gries (1982).

A tally keeps at most `capacity` items of each feature. When there are more, the (capacity + 1)th largest count is
taken off all of that feature's counts and what is not above zero goes (the merge of Agarwal et al. 2012, "Mergeable
summaries"); how much was taken is remembered. So the true count of an item lies between its count and count + error,
and a feature whose error is 0 is counted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

_WAITING = 1 << 21  # pairs that wait to be counted; when they are counted does not change the result
_LARGEST = (1 << 40) - 1  # no count reaches this


@dataclass
class Tally:
    """`items` is how many kinds of item there are; a key is feature * items + item. `keys` ascend."""

    features: int
    items: int
    capacity: int
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    error: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _waiting: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not len(self.error):
            self.error = np.zeros(self.features, dtype=np.int64)

    def add(self, feature: np.ndarray, item: np.ndarray) -> None:
        """Count each pair once. Exact until the next `prune`."""
        self._waiting.append(feature.astype(np.int64) * self.items + item)
        if sum(map(len, self._waiting)) > _WAITING:
            self.settle()

    def settle(self) -> None:
        """Count the pairs that wait."""
        if not self._waiting:
            return
        waiting = np.concatenate(self._waiting)
        self._waiting = []
        new, counts = np.unique(waiting, return_counts=True)
        at = np.searchsorted(self.keys, new)
        known = at < len(self.keys)
        known[known] = self.keys[at[known]] == new[known]
        self.counts[at[known]] += counts[known]
        self.keys = np.insert(self.keys, at[~known], new[~known])
        self.counts = np.insert(self.counts, at[~known], counts[~known])

    def prune(self) -> None:
        """Back to `capacity` items a feature."""
        self.settle()
        feature = self.keys // self.items
        size = np.bincount(feature, minlength=self.features)
        full = size > self.capacity
        if not full.any():
            return
        over = full[feature]
        # by feature and then the largest count first, as one number
        packed = (feature[over] << 40) | (_LARGEST - self.counts[over])
        packed.sort()
        begins = np.cumsum(size[full]) - size[full]
        cut = np.zeros(self.features, dtype=np.int64)
        cut[full] = _LARGEST - (packed[begins + self.capacity] & _LARGEST)  # the largest count that has no room
        self.error += cut
        left = self.counts - cut[feature]
        self.keys, self.counts = self.keys[left > 0], left[left > 0]

    def table(self, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(feature, item, count) of some keys, by feature and then the largest count first."""
        self.settle()
        feature, item, counts = self.keys[rows] // self.items, self.keys[rows] % self.items, self.counts[rows]
        order = np.lexsort((item, -counts, feature))
        return feature[order], item[order], counts[order]
