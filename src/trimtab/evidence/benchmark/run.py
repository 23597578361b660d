"""The whole benchmark, in units that are complete or not there: make recipes, write texts, judge them.

Concept by concept, so that a run that is stopped has some concepts complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.judge import Bench, judge_unit
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.make import dose_texts, make, recipe_of
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.units import BenchSpec, Folder, Unit
from trimtab.evidence.benchmark.write import groups, write_units
from trimtab.evidence.trace import refuse_edited
from trimtab.files import read_json, write_json
from trimtab.find.gain import Curvature
from trimtab.sae.load import check_fits
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Progress = Callable[[str, float, float, str], None]
"""Called with a title, how many steps are done, how many there are, and what is being done."""

PACE = "pace"


@dataclass(frozen=True)
class Left:
    """What is still to do: recipes to make, units and tokens (at most) to write, units to judge.

    seconds: how long that takes at the pace of the folder so far; None where it has none yet.
    """

    recipes: int
    units: int
    tokens: int
    judgements: int
    seconds: float | None = None

    @property
    def nothing(self) -> bool:
        """Whether everything is there."""
        return not (self.recipes or self.units or self.judgements)


def left(folder: Folder, units: Sequence[Unit], concepts: Sequence[Concept], spec: BenchSpec) -> Left:
    """What a run would still have to do."""
    texts = len(_to_write(folder, units))
    counts = {
        "recipes": len(_to_make(folder, units)),
        "units": texts,
        "judgements": sum(not folder.file("scores", path).exists() for path, *_ in _judgements(units, concepts)),
    }
    pace = _pace(folder)
    known = all(kind in pace for kind, n in counts.items() if n)
    seconds = sum(n * pace[kind][1] / pace[kind][0] for kind, n in counts.items() if n) if known else None
    tokens = texts * len(spec.prompts) * spec.samples * spec.sampling.max_new_tokens
    return Left(counts["recipes"], texts, tokens, counts["judgements"], seconds)


def run(
    model: Model,
    saes: Sequence[SAE],
    folder: Folder,
    spec: BenchSpec,
    concepts: Sequence[Concept],
    units: Sequence[Unit],
    *,
    witness: SAE | None = None,
    independent: Model | None = None,
    endpoint: Endpoint | None = None,
    seconds: float | None = None,
    progress: Progress | None = None,
) -> Left:
    """Do what is left of `units`, for about `seconds` at most; what is left then.

    saes: the first is the one that single-site methods steer with; all are used by methods of several layers.
    witness: an SAE whose features judge beside the words. independent: another model that judges fluency.
    Raises what `Folder.open` raises, and `UnsupportedError` when the model is being edited.
    """
    for sae in saes:
        check_fits(sae, model)
    refuse_edited(model)
    folder.open(model, saes, spec, concepts)
    bench = Bench(model, tuple(saes), folder, spec, witness, independent, endpoint)
    now = _Now(folder, left(folder, units, concepts, spec), seconds, progress)
    curves: dict[Site, Curvature] = {}
    for concept in concepts:
        mine = [unit for unit in units if unit.concept in (None, concept.name)]
        _make_all(bench, concept, mine, curves, now)
        _write_all(bench, concept, mine, now)
        _judge_all(bench, concept, mine, now)
    return left(folder, units, concepts, spec)


class _Now:
    """Where a run stands: its steps, its pace, and whether there is time for more."""

    def __init__(self, folder: Folder, rest: Left, seconds: float | None, progress: Progress | None) -> None:
        self.folder, self.progress = folder, progress
        self.done, self.steps = 0, rest.recipes + rest.units + rest.judgements
        self.until = None if seconds is None else time.monotonic() + seconds
        self.pace = _pace(folder)

    @property
    def late(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def say(self, what: str, part: float = 0.0) -> None:
        if self.progress is not None:
            self.progress("benchmark", self.done + part, self.steps, what)

    @contextmanager
    def doing(self, kind: str, n: int, what: str) -> Iterator[None]:
        """Around `n` steps of one kind: what is said meanwhile, and how long they take."""
        self.say(what)
        began = time.monotonic()
        yield
        count, spent = self.pace.get(kind, (0, 0.0))
        self.pace[kind] = (count + n, spent + time.monotonic() - began)
        write_json(self.folder.file("", PACE), self.pace)
        self.done += n
        self.say(what)


def _make_all(bench: Bench, concept: Concept, units: Sequence[Unit], curves: dict[Site, Curvature], now: _Now) -> None:
    wanted = _to_make(bench.folder, units)
    if not wanted or now.late:
        return
    texts = dose_texts(bench.folder, bench.model, bench.spec.seed)
    kit = Kit(bench.model, bench.saes, concept, curves, bench.spec.seed)
    for method in dict.fromkeys(unit.method for unit in wanted):
        if now.late:
            return
        mine = [unit for unit in wanted if unit.method == method]
        with now.doing("recipes", len(mine), f"{concept.name}: making {method}"):
            make(bench.folder, kit, method, mine, texts)


def _write_all(bench: Bench, concept: Concept, units: Sequence[Unit], now: _Now) -> None:
    folder, spec = bench.folder, bench.spec
    wanted = [unit for unit in _to_write(folder, units) if unit.budget is None or _is_made(folder, unit)]
    for group in groups(wanted, spec):
        if now.late:
            return
        what = f"{concept.name}: writing"
        with now.doing("units", len(group), what):
            recipes = {unit: recipe_of(folder, unit, bench.saes) for unit in group}
            write_units(bench.model, folder, spec, recipes, concept, _shown(now, what, len(group)))


def _shown(now: _Now, what: str, steps: int) -> Callable[[str, int, int], None]:
    """Tokens written as a part of `steps`."""
    return lambda _, tokens, of: now.say(what, steps * tokens / max(1, of))


def _judge_all(bench: Bench, concept: Concept, units: Sequence[Unit], now: _Now) -> None:
    for path, _, unit in _judgements(units, [concept]):
        if bench.folder.file("scores", path).exists() or not _is_written(bench.folder, unit):
            continue
        if now.late:
            return
        with now.doing("judgements", 1, f"{concept.name}: judging {unit.method}"):
            judge_unit(bench, path, concept, unit)


def _pace(folder: Folder) -> dict[str, tuple[int, float]]:
    """Steps and seconds of each kind so far."""
    path = folder.file("", PACE)
    return {kind: (int(n), float(spent)) for kind, (n, spent) in read_json(path).items()} if path.exists() else {}


def _judgements(units: Sequence[Unit], concepts: Sequence[Concept]) -> list[tuple[str, Concept, Unit]]:
    """(file, concept, unit) of all that is judged; the texts without steering once for each concept."""
    out = []
    for concept in concepts:
        for unit in units:
            if unit.concept in (None, concept.name):
                path = Unit(concept.name, unit.method, unit.budget).path
                out.append((path, concept, unit))
    return out


def _to_make(folder: Folder, units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if METHODS[unit.method].recipe is not None and not _is_made(folder, unit)]


def _to_write(folder: Folder, units: Sequence[Unit]) -> list[Unit]:
    return [unit for unit in units if not _is_written(folder, unit)]


def _is_made(folder: Folder, unit: Unit) -> bool:
    return folder.file("made", unit.path).exists()


def _is_written(folder: Folder, unit: Unit) -> bool:
    return folder.file("texts", unit.path).exists()
