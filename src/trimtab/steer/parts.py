"""Texts written to a folder in parts that survive being killed: what sweeps and corpora have in common.

A part is always made of the same rows in the same batches and is renamed into place when it is complete, so a run that
was killed goes on after its last part and ends with the very rows that it would have had.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError, InputError
from trimtab.files import write_json
from trimtab.steer.run_folder import Kind, part_name, rows_of, write_part

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress, Row, Written
    from trimtab.lm.model import Model

_BATCHES_PER_PART = 2


@dataclass(frozen=True)
class Cost:
    """What is left to write: texts, tokens at most, and seconds at the `rate` (tokens/s) that was measured."""

    rows: int
    tokens: int
    rate: float

    @property
    def seconds(self) -> float:
        """Time until the end if every text runs to its full length."""
        return self.tokens / self.rate if self.tokens else 0.0


@dataclass(frozen=True, eq=False)
class Job:
    """`n_rows` texts of up to `new_tokens` tokens for `folder`. `rows(span)` says how the texts of a span of row
    numbers are drawn, `records(span, rows, written)` what is stored of them.
    """

    model: Model
    folder: Path
    kind: Kind
    manifest: dict[str, Any]
    n_rows: int
    new_tokens: int
    batch_size: int
    rows: Callable[[range], list[Row]]
    records: Callable[[range, list[Row], list[Written]], list[dict[str, Any]]]

    def span(self, part: int) -> range:
        """The row numbers of a part."""
        size = self.batch_size * _BATCHES_PER_PART
        return range(part * size, min((part + 1) * size, self.n_rows))

    def missing(self) -> list[int]:
        """Parts still to write. Raises `FileError` for one that is there and damaged."""
        parts = range(-(-self.n_rows // (self.batch_size * _BATCHES_PER_PART)))
        there = {part for part in parts if (self.folder / part_name(part)).exists()}
        for part in there:
            path = self.folder / part_name(part)
            if rows_of(path) != len(self.span(part)):
                raise FileError(f"{path} is damaged: remove it, and it will be written again.")
        return [part for part in parts if part not in there]

    def write(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Write the manifest and the missing parts. What `progress` gets is about the whole run."""
        from trimtab.lm.decode import Progress

        write_json(self.folder / self.kind.manifest, self.manifest)
        left = self.missing()
        done, tokens = self.n_rows - sum(len(self.span(part)) for part in left), 0
        began = time.monotonic()
        for part in left:
            after = self.n_rows - done - len(self.span(part))

            def show(now: Progress, done: int = done, tokens: int = tokens, after: int = after) -> None:
                if progress is not None:
                    rest = now.left + after * self.new_tokens
                    elapsed = time.monotonic() - began
                    progress(Progress(done + now.done, self.n_rows, tokens + now.tokens, rest, elapsed))

            tokens += self._write_one(part, show)
            done += len(self.span(part))

    def _write_one(self, part: int, progress: Callable[[Progress], None]) -> int:
        """Write one part; the number of tokens that it took."""
        from trimtab.lm.decode import decode

        span = self.span(part)
        rows = self.rows(span)
        written = decode(self.model, rows, batch_size=self.batch_size, stops=self.model.eos_ids, progress=progress)
        write_part(self.folder / part_name(part), self.kind, self.records(span, rows, written))
        return sum(len(one.tokens) for one in written)

    def cost(self) -> Cost:
        """What `write` would still have to do, at the rate of a few steps of its first batch. Writes nothing."""
        left = self.missing()
        if not left:
            return Cost(0, 0, 0.0)
        rows = sum(len(self.span(part)) for part in left)
        return Cost(rows, rows * self.new_tokens, self._rate(left[0]))

    def _rate(self, part: int) -> float:
        """Tokens per second of a few steps of a part's first batch, the prompts' pass spread over full texts."""
        from trimtab.lm.decode import decode

        steps = min(6, self.new_tokens)
        rows = [
            replace(row, sampling=row.sampling.model_copy(update={"max_new_tokens": steps}))
            for row in self.rows(self.span(part)[: self.batch_size])
        ]
        times: list[float] = []
        decode(self.model, rows, batch_size=self.batch_size, progress=lambda now: times.append(now.seconds))
        more = [after - before for before, after in pairwise(times)]
        step = statistics.median(more) if more else 0.0
        return len(rows) * self.new_tokens / (times[0] + step * (self.new_tokens - 1))


def choose_batch(model: Model, longest: int, n_rows: int, asked: int | None, found: dict[str, Any] | None) -> int:
    """How many texts are written at a time: as asked, else as in the folder's manifest, else what memory allows.

    `longest`: tokens of the longest text, prompt included.
    """
    from trimtab.lm.memory import rows_that_fit

    if asked is not None:
        if asked < 1:
            raise InputError(f"batch_size must be at least 1, not {asked}.")
        return asked
    return int(found["batch_size"]) if found else min(rows_that_fit(model, longest), n_rows)


def about_model(model: Model) -> dict[str, Any]:
    """What a manifest says of the model."""
    dtype = str(model.dtype).split(".")[-1]
    return {"name": model.name, "fingerprint": model.fingerprint, "dtype": dtype}
