"""Units on Ray: one actor for each worker, which opens what it holds once and does one unit at a time.

An actor puts its part in place itself, so only entries of the ledger travel. One that dies takes the unit that it was
doing with it, which another does again; Ray starts the actor anew, on another machine when its own is gone.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, UnsupportedError, WorkerError
from trimtab.scale.folder import Entry, Log, RunFolder
from trimtab.scale.unit import Open, Unit

if TYPE_CHECKING:
    from trimtab.scale.run import Done, On, Say

TRIES = 3
_KEYS = ("AWS_", "GOOGLE_", "AZURE_")
AHEAD = 4
"""Units done and not yet named, for each worker, while an earlier one is still being done."""


class Worker:
    """What runs in an actor's process."""

    def open(self, open_: Open, folder: RunFolder, keys: dict[str, str]) -> None:
        """Open what is held; first in the life of an actor. `keys` are variables that the store's library reads."""
        os.environ.update(keys)
        self._held = ExitStack()
        self._do = self._held.enter_context(open_())
        self._folder = folder
        self.name = f"{socket.gethostname()}:{os.getpid()}"

    def do(self, unit: Unit) -> tuple[Entry, float, str]:
        """Do a unit and put its part in place."""
        began = time.monotonic()
        entry = self._folder.keep(unit.id, self._do(unit, lambda _: None))
        return entry, time.monotonic() - began, self.name


def on_ray(
    open_: Open, units: Iterable[Unit], folder: RunFolder, on: On, there: Mapping[str, Entry], say: Say, log: Log
) -> Iterator[Done]:
    """`run_units` on Ray. Raises `WorkerError` for a unit whose workers die again and again."""
    if folder.store.protocol == "memory":
        raise UnsupportedError(
            "The memory of this process cannot be reached from Ray's workers: use a folder or s3://."
        )
    from trimtab.scale.run import Done

    coming = iter(units)
    for first in coming:
        if first.id not in there:
            break
        yield Done(first, there[first.id], fresh=False)
    else:  # nothing to do, so no cluster
        return
    with _cluster(on) as (ray, threads):
        yield from _Pool(ray, open_, folder, on.workers, threads, say, log).run(chain([first], coming), there)


class _Pool:
    """The actors, what each is doing, and what was done out of order."""

    def __init__(
        self, ray: Any, open_: Open, folder: RunFolder, workers: int, threads: int, say: Say, log: Log
    ) -> None:
        self.ray, self.say, self.log = ray, say, log
        variables = {"OMP_NUM_THREADS": str(threads)}
        actor = ray.remote(Worker).options(
            num_cpus=threads, max_restarts=-1, max_task_retries=0, runtime_env={"env_vars": variables}
        )
        self.held, self.folder = ray.put(open_), folder
        # By hand, not as Ray's environment, which its dashboard and logs show.
        self.keys = (
            {name: value for name, value in os.environ.items() if name.startswith(_KEYS)}
            if not folder.store.local
            else {}
        )
        self.actors = [actor.remote() for _ in range(workers)]
        self.doing: dict[Any, tuple[Any, Unit | None]] = {}  # by what is awaited: who does what, None for opening
        for one in self.actors:
            self._open(one)
        self.tries: dict[str, int] = {}
        self.again: deque[Unit] = deque()

    def run(self, units: Iterable[Unit], there: Mapping[str, Entry]) -> Iterator[Done]:
        from trimtab.scale.run import Done

        coming = iter(units)
        order: deque[Unit] = deque()  # handed out or there, and not yet named
        done: dict[str, Done] = {}
        idle: list[Any] = []
        more = True
        try:
            while more or order:
                while more and len(order) < AHEAD * len(self.actors) and (idle or not order):
                    unit = next(coming, None)
                    more = unit is not None
                    if unit is None:
                        break
                    order.append(unit)
                    if unit.id in there:
                        done[unit.id] = Done(unit, there[unit.id], fresh=False)
                    else:
                        self.again.append(unit)
                    self._hand_out(idle)
                while order and order[0].id in done:
                    yield done.pop(order.popleft().id)
                if order and order[0].id not in done:
                    self._hand_out(idle)
                    for one in self._finished(idle):
                        done[one.unit.id] = one
        finally:
            for actor in self.actors:
                with suppress(Exception):  # the cluster may be gone
                    self.ray.kill(actor)

    def _hand_out(self, idle: list[Any]) -> None:
        while idle and self.again:
            actor, unit = idle.pop(), self.again.popleft()
            self.doing[actor.do.remote(unit)] = (actor, unit)

    def _finished(self, idle: list[Any]) -> Iterator[Done]:
        """Wait until something is; actors that are free again join `idle`."""
        from trimtab.scale.run import Done

        ready, _ = self.ray.wait(list(self.doing), num_returns=1)
        for ref in ready:
            actor, unit = self.doing.pop(ref)
            try:
                found = self.ray.get(ref)
            except self.ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except self.ray.exceptions.RayActorError as error:
                self._lost(actor, unit, error)
                continue
            idle.append(actor)
            if unit is None:
                self.tries.pop("opening", None)
            else:
                entry, seconds, name = found
                yield Done(unit, entry, True, seconds, name)

    def _lost(self, actor: Any, unit: Unit | None, error: Exception) -> None:
        """An actor died: its unit waits for another, and it for its new life."""
        key = unit.id if unit else "opening"
        self.tries[key] = self.tries.get(key, 0) + 1
        if self.tries[key] >= TRIES * (1 if unit else len(self.actors)):
            what = f"the unit {unit.id}" if unit else "opening the model"
            raise WorkerError(f"Workers died {self.tries[key]} times over {what}: {str(error).partition(chr(10))[0]}")
        said = f"a worker died{f' over {unit.id}, which is done again' if unit else ''}"
        self.log.say("lost", unit=key)
        self.say(said)
        if unit is not None:
            self.again.appendleft(unit)
        self._open(actor)

    def _open(self, actor: Any) -> None:
        opening = actor.open.options(max_task_retries=20)  # some meet the actor before its new life
        self.doing[opening.remote(self.held, self.folder, self.keys)] = (actor, None)


def _processors(ray: Any) -> float:
    found: dict[str, float] = ray.cluster_resources()
    return found.get("CPU", 0.0)


@contextmanager
def _cluster(on: On) -> Iterator[tuple[Any, int]]:
    """Ray, connected, and the threads of each worker. What was started or connected here is ended here."""
    try:
        import ray
    except ImportError:
        raise UnsupportedError("Ray is not installed: pip install 'trimtab[scale]'.") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ours = not ray.is_initialized()
    address = on.where if on.where != "ray" else os.environ.get("RAY_ADDRESS")
    if ours:
        _start(ray, address, on.workers * (on.threads or 1))
    try:
        processors = int(_processors(ray))
        here = int(os.environ.get("OMP_NUM_THREADS", 0)) or os.cpu_count() or 1
        threads = on.threads or max(1, (here if ours and address is None else processors) // on.workers)
        if threads * on.workers > processors:
            raise InputError(
                f"The cluster has {processors} processors, not {on.workers} workers with {threads} threads each."
            )
        yield ray, threads
    finally:
        if ours:
            ray.shutdown()


def _start(ray: Any, address: str | None, least: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            processors = max(least, os.cpu_count() or 1)
            # Ray gives its workers the priority of nice 15: they would wait for everything else on the machine.
            system = {"worker_niceness": 0}
            ray.init(address="local", num_cpus=processors, include_dashboard=False, _system_config=system, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise WorkerError(f"Ray at {address or 'this machine'} cannot be reached: {error}") from None
