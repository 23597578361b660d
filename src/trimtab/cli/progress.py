"""Progress bars on stderr, one for each stage of a command."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from trimtab.cli.console import err


class Bars:
    """A context manager; `show` draws a stage's bar, a new one for a stage not seen before."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._progress = Progress(*columns, console=err())
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, stage: str, done: float, total: float, note: str = "") -> None:
        """`done` of `total` of a stage is finished."""
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(stage, note="")
        self._progress.update(self._tasks[stage], completed=done, total=total, note=note)
