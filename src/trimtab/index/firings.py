"""What fired in a window, by feature: where each is strongest, which fire together, how many in each bin."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from trimtab.index.events import Events
from trimtab.index.sample import rank
from trimtab.sae.firing import stable_order

_VALUE_BITS = 31  # of a positive float32


@dataclass(frozen=True)
class Firings:
    """The events of a window in order of (feature, token), with the context of each."""

    feature: np.ndarray  # [n] int64
    token: np.ndarray  # [n] int64, into the window's tokens
    value: np.ndarray  # [n] float32
    context: np.ndarray  # [n] int64, into the window's contexts

    @staticmethod
    def of(found: Events) -> Firings:
        """Sorted; events come in order of (token, feature)."""
        order = stable_order(found.feature)
        token = found.token[order]
        return Firings(found.feature[order], token, found.value[order], found.context[token])

    @cached_property
    def peaks(self) -> np.ndarray:
        """Where each feature is strongest in each context (the first such token), as indices of firings."""
        n = len(self.feature)
        if not n:
            return np.zeros(0, dtype=np.int64)
        begins = np.ones(n, dtype=bool)
        begins[1:] = (self.feature[1:] != self.feature[:-1]) | (self.context[1:] != self.context[:-1])
        first = np.flatnonzero(begins)
        run = np.cumsum(begins)
        at = np.flatnonzero(self.value == np.maximum.reduceat(self.value, first)[run - 1])
        return at[np.flatnonzero(np.diff(run[at], prepend=0))]

    @cached_property
    def begins(self) -> np.ndarray:
        """Where the firings of each feature that fires begin."""
        return np.flatnonzero(np.diff(self.feature, prepend=-1))


def pairs(found: Events, most: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Every ordered pair of features among the `most` strongest of each token (ties: lower index first)."""
    feature_bits = max(1, (features - 1).bit_length())
    tokens = 1 << (64 - _VALUE_BITS - feature_bits)  # so many fit into one key beside value and feature
    edges = np.searchsorted(found.token, np.arange(0, len(found.ids) + tokens, tokens))
    left, right = np.where(~np.eye(most, dtype=bool))
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for begin, end in pairwise(edges):
        table = _strongest(found, slice(int(begin), int(end)), most, feature_bits)
        a, b = table[:, left].ravel(), table[:, right].ravel()
        both = (a >= 0) & (b >= 0)
        sides[0].append(a[both])
        sides[1].append(b[both])
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _strongest(found: Events, span: slice, most: int, feature_bits: int) -> np.ndarray:
    """[tokens that fire, most] the strongest features of each token, -1 where there are fewer.

    Token, value and feature go into one number of 64 bits, since sorting such numbers is much faster than sorting
    their places.
    """
    token, bits = found.token[span], np.ascontiguousarray(found.value[span]).view(np.uint32)
    if not len(token):
        return np.zeros((0, most), dtype=np.int64)
    key = (token - token[0]).astype(np.uint64) << np.uint64(_VALUE_BITS)
    key |= np.uint64((1 << _VALUE_BITS) - 1) - bits.astype(np.uint64)
    key = (key << np.uint64(feature_bits)) | found.feature[span].astype(np.uint64)
    key.sort()
    place = rank(key >> np.uint64(_VALUE_BITS + feature_bits))
    few = np.flatnonzero(place < most)
    row = np.cumsum(place[few] == 0) - 1
    table = np.full((int(row[-1]) + 1, most), -1, dtype=np.int64)
    table[row, place[few]] = (key[few] & np.uint64((1 << feature_bits) - 1)).astype(np.int64)
    return table
