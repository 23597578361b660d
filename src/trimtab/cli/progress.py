"""Progress on stderr, one bar for each stage of a command; in a log file, a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trimtab.cli.console import err

LOG_SECONDS = 30.0


class Bars:
    """A context manager. `show` draws a stage's bar; `finish` leaves the bars as they are, so that text can follow."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._logged = -LOG_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def show(self, stage: str, done: float, total: float, note: str = "") -> None:
        """`done` of `total` of a stage is finished."""
        if not err().is_terminal:
            self._log(stage, done, total, note)
            return
        if self._progress is None:
            self._progress = _bars()
            self._progress.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, note="")
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)

    def _log(self, stage: str, done: float, total: float, note: str) -> None:
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            err().print(f"{stage} {done:,.0f} of {total:,.0f}  {note}", markup=False)

    def finish(self) -> None:
        """Stop drawing; a later `show` starts new bars."""
        if self._progress is not None:
            self._progress.stop()
        self._progress, self._tasks = None, {}


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err(),
    )
