"""The key-value cache of a batch whose rows come and go: laid out once, never grown.

Every row ends at the same column, the *edge*, and starts as far before it as it is long (left padding). So a step
writes one column for all rows; a row that enters is copied in so that it ends at the edge; a row that leaves is
replaced by the last one; and when the edge reaches the end of the buffer everything moves back to its start, which
happens rarely. Attention sees only the columns back to the longest row's start. All layers keep all columns: the
windows of sliding layers are a matter of transformers' masks, which see the columns in their order.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Layer(CacheLayerMixin):
    """Keys and values [slots, heads, columns, width] of one layer; what it is asked comes from its `RowCache`."""

    is_sliding = False

    def __init__(self, owner: RowCache) -> None:
        super().__init__()
        # A cycle would keep the buffers, which may be a gigabyte, until the next full garbage collection.
        self.owner = cast("RowCache", weakref.proxy(owner))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Lay the buffers out, once the first keys and values tell their shapes."""
        # zeros, not what memory holds: a masked NaN is still a NaN after attention
        self.keys, self.values = (
            part.new_zeros(self.owner.slots, part.shape[1], self.owner.columns, part.shape[3])
            for part in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the new columns, and return the keys and values [rows, heads, span, width] that they may look at."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, new = key_states.shape[0], key_states.shape[2]
        start, edge = self.owner.start, self.owner.edge
        self.keys[:rows, :, edge : edge + new] = key_states
        self.values[:rows, :, edge : edge + new] = value_states
        return self.keys[:rows, :, start : edge + new], self.values[:rows, :, start : edge + new]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the new tokens may look at, and the first of them."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Columns in use before the new tokens."""
        return self.owner.edge - self.owner.start

    def get_max_length(self) -> int:
        """Columns of the buffer."""
        return self.owner.columns


class RowCache(Cache):
    """A transformers cache of at most `slots` rows and `columns` tokens; rows 0 to n - 1 are in use.

    `start` and `edge` are the first column in use and the one that is written next. Whoever runs the model calls
    `advance` after each forward pass.
    """

    def __init__(self, n_layers: int, slots: int, columns: int, edge: int = 0) -> None:
        self.slots, self.columns = slots, columns
        self.start = self.edge = edge
        super().__init__(layers=[Layer(self) for _ in range(n_layers)])

    def advance(self, tokens: int) -> None:
        """Count `tokens` columns as written."""
        self.edge += tokens

    def look_back(self, longest: int, reserve: int) -> None:
        """Show the `longest` columns before the edge; when the buffer is full, move them back to its start first.

        The edge never comes nearer to the start than `reserve`, the longest row that may still enter.
        """
        if self.edge >= self.columns:
            to = max(longest, reserve)
            for part in self._parts():
                part[:, :, to - longest : to] = part[:, :, self.edge - longest : self.edge].clone()
            self.edge = to
        self.start = self.edge - longest

    def insert(self, at: int, other: RowCache, rows: Sequence[int], length: int) -> None:
        """Copy the last `length` columns of the given rows of `other` to slots `at`, `at + 1`, ..."""
        self.start = min(self.start, self.edge - length)
        index = torch.tensor(rows)
        for layer, source in zip(self.layers, other.layers, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(source.keys, source.values)
            span = slice(self.edge - length, self.edge)
            theirs = slice(other.edge - length, other.edge)
            for mine, part in ((layer.keys, source.keys), (layer.values, source.values)):
                mine[at : at + len(rows), :, span] = part[:, :, theirs][index.to(part.device)]

    def keep(self, rows: Sequence[int]) -> None:
        """Leave only these rows, in this order; each is moved at most once."""
        moves = [(to, row) for to, row in enumerate(rows) if to != row]
        if not moves:
            return
        to, row = ([pair[i] for pair in moves] for i in (0, 1))
        for part in self._parts():
            part[to, :, self.start : self.edge] = part[row, :, self.start : self.edge]

    def clear(self, rows: Sequence[int]) -> None:
        """Forget what these rows hold: a masked NaN would still reach the row that takes the place."""
        for part in self._parts():
            part[list(rows)] = 0

    def _parts(self) -> list[Tensor]:
        return [part for layer in self.layers if layer.is_initialized for part in (layer.keys, layer.values)]
