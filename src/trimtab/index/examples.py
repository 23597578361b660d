"""Examples while an index is built: which firing, how strong, and where its text stands in the file of all tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_COLUMNS: dict[str, Any] = {
    "group": np.int64, "key": np.uint64, "document": np.int64, "context": np.int64, "position": np.int32,
    "source": np.int16, "value": np.float32, "place": np.int64, "left": np.int16, "right": np.int16, "near": np.int16,
}  # fmt: skip
_NEAR: dict[str, Any] = {"near_at": np.int16, "near_value": np.float32}


@dataclass(frozen=True)
class Examples:
    """Examples as columns, a row for each. `group` is feature * GROUPS + slot.

    `place` of the firing token in the `TokenFile`; `left` and `right`: how many tokens before and after it are shown.
    `near` of all these tokens fire: `near_at` (0: the first one shown) and `near_value` have the rows' one after
    another.
    """

    group: np.ndarray
    key: np.ndarray
    document: np.ndarray
    context: np.ndarray
    position: np.ndarray
    source: np.ndarray
    value: np.ndarray
    place: np.ndarray
    left: np.ndarray
    right: np.ndarray
    near: np.ndarray
    near_at: np.ndarray
    near_value: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    @staticmethod
    def of(columns: dict[str, np.ndarray]) -> Examples:
        """Columns of any number types in those that are kept."""
        return Examples(**{name: columns[name].astype(kind, copy=False) for name, kind in (_COLUMNS | _NEAR).items()})

    @staticmethod
    def none() -> Examples:
        """No rows."""
        return Examples(**{name: np.zeros(0, kind) for name, kind in (_COLUMNS | _NEAR).items()})

    @staticmethod
    def chosen(parts: list[Examples], which: np.ndarray) -> Examples:
        """The rows `which` of all rows of `parts`; `parts` is emptied, so that no column is in memory three times."""
        columns = [dict(vars(part)) for part in parts]
        parts.clear()

        def joined(name: str) -> np.ndarray:
            return np.concatenate([one.pop(name) for one in columns])

        near = joined("near").astype(np.int64)
        flat = spread((near.cumsum() - near)[which], near[which])
        rows = {name: joined(name)[which] for name in _COLUMNS if name != "near"}
        return Examples.of({**rows, "near": near[which], **{name: joined(name)[flat] for name in _NEAR}})


def spread(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """`length[i]` whole numbers from `first[i]` on, for every i, one after another."""
    ends = length.cumsum()
    return np.repeat(first - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
