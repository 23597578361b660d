"""Counts of (feature, item) pairs in bounded space, after Misra and Gries (1982).

A tally keeps at most `capacity` items of each feature. When there are more, the (capacity + 1)th largest count is
taken off all of that feature's counts and what is not above zero goes (the merge of Agarwal et al. 2012, "Mergeable
summaries"); how much was taken is remembered. So the true count of an item lies between its count and count + error,
and a feature whose error is 0 is counted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trimtab.index.sample import rank


@dataclass
class Tally:
    """`items` is how many kinds of item there are; a key is feature * items + item."""

    features: int
    items: int
    capacity: int
    keys: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    error: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.error):
            self.error = np.zeros(self.features, dtype=np.int64)

    def add(self, feature: np.ndarray, item: np.ndarray) -> None:
        """Count each pair once. Exact until the next `prune`."""
        keys, counts = np.unique(feature.astype(np.int64) * self.items + item, return_counts=True)
        self.keys, inverse = np.unique(np.concatenate([self.keys, keys]), return_inverse=True)
        self.counts = np.bincount(inverse, np.concatenate([self.counts, counts])).astype(np.int64)

    def prune(self) -> None:
        """Back to `capacity` items a feature."""
        feature, item = self.keys // self.items, self.keys % self.items
        order = np.lexsort((item, -self.counts, feature))
        place = rank(feature[order])
        over = order[place == self.capacity]  # the largest count that has no room, of each feature that has one
        cut = np.zeros(self.features, dtype=np.int64)
        cut[feature[over]] = self.counts[over]
        self.error += cut
        left = self.counts - cut[feature]
        self.keys, self.counts = self.keys[left > 0], left[left > 0]

    def table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(feature, item, count), by feature and then the largest count first."""
        feature, item = self.keys // self.items, self.keys % self.items
        order = np.lexsort((item, -self.counts, feature))
        return feature[order], item[order], self.counts[order]
