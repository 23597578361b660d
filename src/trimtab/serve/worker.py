"""The one thread that uses the model: it steps the engine, and does other work between steps."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from trimtab.errors import TrimtabError
from trimtab.lm.engine import Engine, is_edited
from trimtab.lm.packed import packed_layers
from trimtab.lm.rows import Drawn, Row
from trimtab.serve.limits import CLOSING, Limits, closing, full

if TYPE_CHECKING:
    from trimtab.lm.model import Model

T = TypeVar("T")
Tell = Callable[[int, Drawn], None]
_LAST = 2.0  # seconds in which the thread ends after what is left was stopped
_log = logging.getLogger("trimtab.serve")


@dataclass(eq=False)
class Ticket:
    """Rows that were asked for together. `tell(number, drawn)` is called in `loop` for every token."""

    rows: Sequence[Row]
    tell: Tell
    loop: asyncio.AbstractEventLoop
    handles: dict[int, int] = field(default_factory=dict)  # handle -> number, of the rows still under way


class Worker:
    """Owns `model`: after `start`, nothing else may run it. All methods may be called from any thread.

    Long work (`run_job`) gives way: whenever it reports progress, the texts that were asked for meanwhile are written.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self.model, self.limits = model, limits
        longest = limits.prompt_tokens + limits.max_tokens
        self.longest = longest if model.context is None else min(longest, model.context)
        prompt = min(limits.prompt_tokens, self.longest)
        self.engine = Engine(model, slots=limits.slots, prompt=prompt, longest=self.longest, stops=model.eos_ids)
        self.tickets: dict[int, Ticket] = {}  # by handle
        self.inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.lock = threading.Lock()
        self.rows = 0  # asked for and not finished
        self.stopping = False
        self.packed: ExitStack | None = None  # where the model's layers are packed, which other work must not meet
        self.thread = threading.Thread(target=self._run, name="trimtab-engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def stop(self, seconds: float) -> None:
        """Take nothing more, and finish what is under way, for at most this long; what is left then ends with an error.

        Long work that does not come to its next report of progress meanwhile is left to end with the process.
        """
        with self.lock:
            if self.stopping:
                return
            self.stopping = True
            self.inbox.put(lambda: None)
        self.thread.join(seconds)
        self.inbox.put(lambda: self._fail(CLOSING))
        self.thread.join(_LAST)
        for handle, ticket in list(self.tickets.items()):  # the thread is stuck in something long
            _tell([(ticket, ticket.handles[handle], Drawn(handle, None, "error", CLOSING))])

    def submit(self, rows: Sequence[Row], tell: Tell, loop: asyncio.AbstractEventLoop) -> Ticket:
        """Let these rows be written. Raises `ApiError` (503) when too many are waiting, and when the server stops."""
        ticket = Ticket(rows, tell, loop)
        with self.lock:
            if self.stopping:
                raise closing()
            if self.rows + len(rows) > self.limits.slots + self.limits.queue:
                raise full()
            self.rows += len(rows)
            self.inbox.put(lambda: self._add(ticket))
        return ticket

    def cancel(self, ticket: Ticket, number: int | None = None) -> None:
        """Write no more of these rows, or of one of them."""
        self.inbox.put(lambda: self._cancel(ticket, number))

    def call(self, work: Callable[[], T]) -> Future[T]:
        """Do something short with the model, between two steps. Raises `ApiError` (503) when the server stops."""
        future: Future[T] = Future()

        def do() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._unpack()
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        with self.lock:
            if self.stopping:
                raise closing()
            self.inbox.put(do)
        return future

    def give_way(self) -> None:
        """For long work in `call`: write now what others have asked for, unless the model is being edited."""
        if is_edited(self.model):
            return
        self._take(wait=False)
        while self.engine.busy:
            self._step()
            self._take(wait=False)
        self._unpack()

    def _run(self) -> None:
        while not (self.stopping and not self.engine.busy and self.inbox.empty()):
            self._take(wait=not self.engine.busy)
            if self.engine.busy:
                self._step()
        self._unpack()
        self.engine.clear()

    def _unpack(self) -> None:
        if self.packed is not None:
            self.packed.close()
            self.packed = None

    def _take(self, wait: bool) -> None:
        """Do what is in the inbox; with `wait`, at least one thing."""
        if wait:
            self._unpack()
            self.inbox.get()()
        while True:
            try:
                do = self.inbox.get_nowait()
            except queue.Empty:
                return
            do()

    def _add(self, ticket: Ticket) -> None:
        for number, row in enumerate(ticket.rows):
            handle = self.engine.add(row)
            ticket.handles[handle] = number
            self.tickets[handle] = ticket

    def _cancel(self, ticket: Ticket, number: int | None) -> None:
        for handle in [handle for handle, mine in ticket.handles.items() if number in (None, mine)]:
            self.engine.cancel(handle)
            self._forget(handle)

    def _forget(self, handle: int) -> None:
        del self.tickets[handle].handles[handle]
        del self.tickets[handle]
        self._count(-1)

    def _count(self, change: int) -> None:
        with self.lock:
            self.rows += change

    def _step(self) -> None:
        try:
            if self.packed is None:
                self.packed = ExitStack()
                self.packed.enter_context(packed_layers(self.model))
            drawn = self.engine.step()
        except Exception as error:  # a bug, or a machine in trouble: those who wait must hear of it
            if not isinstance(error, TrimtabError):
                _log.exception("The engine failed")
            self._fail("The engine failed; the texts that were being written are lost.")
            return
        told = []
        for one in drawn:
            ticket = self.tickets[one.handle]
            told.append((ticket, ticket.handles[one.handle], one))
            if one.finished is not None:
                self._forget(one.handle)
        _tell(told)

    def _fail(self, why: str) -> None:
        """End every row with an error."""
        self.engine.clear()
        told = []
        for handle, ticket in list(self.tickets.items()):
            told.append((ticket, ticket.handles[handle], Drawn(handle, None, "error", why)))
            self._forget(handle)
        _tell(told)


def _tell(told: Sequence[tuple[Ticket, int, Drawn]]) -> None:
    """Tell each loop all of its news at once: waking it for every token costs more than the token."""
    for loop in {ticket.loop for ticket, *_ in told}:
        mine = [(ticket.tell, number, drawn) for ticket, number, drawn in told if ticket.loop is loop]
        with suppress(RuntimeError):  # the loop has ended, and with it all who listened
            loop.call_soon_threadsafe(_all, mine)


def _all(told: Sequence[tuple[Tell, int, Drawn]]) -> None:
    for tell, number, drawn in told:
        tell(number, drawn)
