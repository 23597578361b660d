"""Texts written to a run folder in parts: what sweeps and corpora have in common.

A part is a unit of `trimtab.scale`: always made of the same rows in the same batches, so a run that was killed goes on
after its last part and ends with the very rows that it would have had, on whatever machines.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.scale.folder import RunFolder, refuse_another
from trimtab.scale.run import LOCAL, On, Say, run_units
from trimtab.scale.unit import Do, Part, Tell, Unit
from trimtab.steer.run_folder import Kind, part_name, table_bytes

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
    """`n_rows` texts of up to `new_tokens` tokens. `rows(span)` says how the texts of a span of row numbers are drawn,
    `records(span, rows, written)` what is stored of them. A job pickles, so that workers elsewhere have it too.
    """

    model: Model
    kind: Kind
    manifest: dict[str, Any]
    n_rows: int
    new_tokens: int
    batch_size: int
    rows: Callable[[range], list[Row]]
    records: Callable[[range, list[Row], list[Written]], list[dict[str, Any]]]

    def units(self) -> list[Unit]:
        """One for each part, in the order of the rows; their work is the span of row numbers."""
        size = self.batch_size * _BATCHES_PER_PART
        spans = (range(start, min(start + size, self.n_rows)) for start in range(0, self.n_rows, size))
        return [Unit(f"rows-{part:05d}", span) for part, span in enumerate(spans)]

    @contextmanager
    def open(self) -> Iterator[Do]:
        """What a worker holds is the job itself, with its model."""
        yield self.part

    def part(self, unit: Unit, tell: Tell) -> Part:
        """Write the texts of one part; `tell` gets the `Progress` of this part."""
        from trimtab.lm.decode import decode
        from trimtab.lm.memory import give_back

        rows = self.rows(unit.work)
        written = decode(self.model, rows, batch_size=self.batch_size, stops=self.model.eos_ids, progress=tell)
        give_back()
        records = self.records(unit.work, rows, written)
        tokens = sum(len(one.tokens) for one in written)
        facts = {"rows": len(rows), "tokens": tokens}
        return Part({part_name(unit.id): table_bytes(self.kind, records)}, facts)

    def write(
        self,
        folder: RunFolder,
        progress: Callable[[Progress], None] | None = None,
        on: On = LOCAL,
        say: Say = lambda _: None,
    ) -> None:
        """Write the manifest and the missing parts. What `progress` gets is about the whole run."""
        for note in folder.begin({**self.manifest, "units": len(self.units())}):
            say(note)
        shown = _Shown(self, progress)
        for done in run_units(self.open, self.units(), folder, on, tell=shown.news, say=say):
            shown.done(len(done.unit.work), done.entry.facts["tokens"] if done.fresh else 0)

    def left(self, folder: RunFolder) -> list[Unit]:
        """The units still to do. Raises `MismatchError` when the folder holds another run."""
        found = folder.manifest()
        if found is None:
            return self.units()
        refuse_another(folder.store, found, {**found, **self.manifest})
        there = {unit for unit, entry in folder.entries().items() if not folder.wrong(entry)}
        return [unit for unit in self.units() if unit.id not in there]

    def cost(self, folder: RunFolder) -> Cost:
        """What `write` would still have to do, at the rate of a few steps of its first batch. Writes nothing."""
        left = self.left(folder)
        if not left:
            return Cost(0, 0, 0.0)
        rows = sum(len(unit.work) for unit in left)
        return Cost(rows, rows * self.new_tokens, self._rate(left[0]))

    def _rate(self, unit: Unit) -> float:
        """Tokens per second of a few steps of a part's first batch, the prompts' pass spread over full texts."""
        from trimtab.lm.decode import decode

        steps = min(6, self.new_tokens)
        rows = [
            replace(row, sampling=row.sampling.model_copy(update={"max_new_tokens": steps}))
            for row in self.rows(unit.work[: self.batch_size])
        ]
        times: list[float] = []
        decode(self.model, rows, batch_size=self.batch_size, progress=lambda now: times.append(now.seconds))
        more = [after - before for before, after in pairwise(times)]
        step = statistics.median(more) if more else 0.0
        return len(rows) * self.new_tokens / (times[0] + step * (self.new_tokens - 1))


class _Shown:
    """How far the whole run is, from news of one part and from parts that are done."""

    def __init__(self, job: Job, progress: Callable[[Progress], None] | None) -> None:
        self.job, self.progress = job, progress
        self.began = time.monotonic()
        self.rows = self.tokens = 0

    def news(self, now: Progress) -> None:
        size = min(self.job.batch_size * _BATCHES_PER_PART, self.job.n_rows - self.rows)
        self._show(now.done, now.tokens, now.left + (self.job.n_rows - self.rows - size) * self.job.new_tokens)

    def done(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = self.rows + rows, self.tokens + tokens
        if tokens:
            self._show(0, 0, (self.job.n_rows - self.rows) * self.job.new_tokens)

    def _show(self, rows: int, tokens: int, left: int) -> None:
        if self.progress is not None:
            from trimtab.lm.decode import Progress

            seconds = time.monotonic() - self.began
            self.progress(Progress(self.rows + rows, self.job.n_rows, self.tokens + tokens, left, seconds))


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
