"""The tokens of every context that a build has read, one after another, in a file of 4 bytes each.

Examples point into it, so that a build holds no text in memory. It only grows; a build that goes on after a kill first
cuts off what was written after its last save.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trimtab.errors import FileError
from trimtab.files import disk_errors

_BYTES = 4


@dataclass
class TokenFile:
    """`length`: how many tokens of `path` count; what stands behind them is cut off before more are written."""

    path: Path
    length: int = 0

    def check(self) -> None:
        """`FileError` when there are fewer than `length` tokens."""
        there = self.path.stat().st_size if self.path.is_file() else 0
        if there < self.length * _BYTES:
            raise FileError(f"{self.path} is missing or damaged, so the build cannot go on: remove {self.path.parent}.")

    def append(self, ids: np.ndarray) -> None:
        """Write more tokens at the end."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self.length else "wb") as file:
                file.truncate(self.length * _BYTES)
                file.seek(0, os.SEEK_END)
                file.write(ids.astype("<i4").tobytes())
        self.length += len(ids)

    def flush(self) -> None:
        """Have what was written on the disk."""
        if self.length:
            with disk_errors(self.path), self.path.open("rb") as file:
                os.fsync(file.fileno())

    def tokens(self) -> np.ndarray:
        """All tokens, [length] int32; they are mapped, so only those that are used are read."""
        if not self.length:
            return np.zeros(0, dtype="<i4")
        return np.memmap(self.path, dtype="<i4", mode="r", shape=(self.length,))
