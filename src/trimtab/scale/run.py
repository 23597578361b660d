"""The units of a run, done here or on Ray: the same units, the same parts, whoever does them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from trimtab.errors import InputError, StorageError
from trimtab.scale.folder import Entry, Log, RunFolder
from trimtab.scale.unit import Do, Open, Tell, Unit


@dataclass(frozen=True)
class On:
    """Where units are done. `where`: local (in this process), ray (a cluster that is there, by RAY_ADDRESS, or one
    started for the run), or a cluster's address such as ray://head:10001 or 10.0.0.1:6379.

    `workers` work at the same time on Ray, each with a model of its own and `threads` threads (None: the processors
    divided by the workers). The last digit of a sum can depend on the number of threads, not on that of the workers.
    """

    where: str = "local"
    workers: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise InputError("A run needs at least 1 worker with at least 1 thread.")
        if self.where == "local" and self.workers > 1:
            raise InputError("Several workers need Ray: add --on ray.")
        if self.where not in ("local", "ray") and ":" not in self.where:
            raise InputError(
                f"A run is done on local, on ray, or at an address such as ray://head:10001, not {self.where!r}."
            )


LOCAL = On()


@dataclass(frozen=True)
class Done:
    """A unit with its entry. `fresh`: it was done now, in `seconds` by `worker`; else it was there."""

    unit: Unit
    entry: Entry
    fresh: bool
    seconds: float = 0.0
    worker: str = ""


Say = Callable[[str], None]


def run_units(
    open_: Open,
    units: Iterable[Unit],
    folder: RunFolder,
    on: On = LOCAL,
    *,
    there: Mapping[str, Entry] | None = None,
    tell: Tell = lambda _: None,
    say: Say = lambda _: None,
) -> Generator[Done]:
    """Do the units that the folder does not have, and name all of them in their order.

    Parts that are damaged are done again, which `say` and the log are told. To stop early, close the iterator: what is
    being done then is given up. `units` is read no further ahead than the workers need. `there` is what `sound` found,
    if it was called before.
    """
    log = Log(folder.store)
    log.say("begin", where=on.where, workers=on.workers, host=socket.gethostname())
    there = sound(folder, say, log) if there is None else there
    began, fresh = time.monotonic(), 0
    try:
        with closing(_do(open_, units, folder, on, there, tell, say, log)) as doing:
            for done in doing:
                if done.fresh:
                    fresh += 1
                    log.say("done", unit=done.unit.id, seconds=round(done.seconds, 3), worker=done.worker)
                yield done
        folder.store.tidy("", "ledger")
        log.say("end", units=fresh, seconds=round(time.monotonic() - began, 3))
    except GeneratorExit:
        log.say("enough", units=fresh)
        raise
    except StorageError:
        log = Log(folder.store)  # an empty one, so that nobody waits for a store that is away once more
        raise
    except BaseException as error:
        log.say("stopped", why=type(error).__name__, said=str(error))
        raise
    finally:
        with suppress(StorageError):
            log.flush()


def sound(folder: RunFolder, say: Say = lambda _: None, log: Log | None = None) -> dict[str, Entry]:
    """The entries whose files are as they were written; `say` is told of the others."""
    found = folder.entries()
    for entry in list(found.values()):
        wrong = folder.wrong(entry)
        if wrong:
            del found[entry.unit]
            said = f"{', '.join(wrong)} in {folder.store}: {'they are' if len(wrong) > 1 else 'it is'} written again"
            if log is not None:
                log.say("damaged", unit=entry.unit, files=wrong)
            say(said)
    return found


def _do(
    open_: Open,
    units: Iterable[Unit],
    folder: RunFolder,
    on: On,
    there: Mapping[str, Entry],
    tell: Tell,
    say: Say,
    log: Log,
) -> Generator[Done]:
    if on.where == "local":
        yield from _here(open_, units, folder, there, tell)
        return
    from trimtab.scale.on_ray import on_ray

    yield from on_ray(open_, units, folder, on, there, say, log)


def _here(
    open_: Open, units: Iterable[Unit], folder: RunFolder, there: Mapping[str, Entry], tell: Tell
) -> Iterator[Done]:
    """One after another in this process; nothing is opened when there is nothing to do."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    with ExitStack() as held:
        do: Do | None = None
        for unit in units:
            if unit.id in there:
                yield Done(unit, there[unit.id], fresh=False)
                continue
            do = do or held.enter_context(open_())
            began = time.monotonic()
            entry = folder.keep(unit.id, do(unit, tell))
            yield Done(unit, entry, True, time.monotonic() - began, worker)
