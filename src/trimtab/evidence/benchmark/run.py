"""The whole benchmark, in units that are complete or not there: make recipes, write texts, judge them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from trimtab.find.gain import Curvature
from trimtab.sae.load import check_fits
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Left:
    """What is still to do: recipes to make, units and tokens (at most) to write, units to judge."""

    recipes: int
    units: int
    tokens: int
    judgements: int

    @property
    def nothing(self) -> bool:
        """Whether everything is there."""
        return not (self.recipes or self.units or self.judgements)


def left(folder: Folder, units: Sequence[Unit], concepts: Sequence[Concept], spec: BenchSpec) -> Left:
    """What a run would still have to do."""
    texts = len(_to_write(folder, units))
    tokens = texts * len(spec.prompts) * spec.samples * spec.sampling.max_new_tokens
    judgements = sum(not folder.file("scores", path).exists() for path, *_ in _judgements(units, concepts))
    return Left(len(_to_make(folder, units)), texts, tokens, judgements)


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
    until = time.monotonic() + (float("inf") if seconds is None else seconds)
    say = progress or (lambda *_: None)
    by_name = {concept.name: concept for concept in concepts}
    _make_all(model, saes, folder, spec, by_name, units, until, say)
    _write_all(model, saes, folder, spec, by_name, units, until, say)
    _judge_all(Bench(model, tuple(saes), folder, spec, witness, independent, endpoint), concepts, units, until, say)
    return left(folder, units, concepts, spec)


def _make_all(
    model: Model, saes: Sequence[SAE], folder: Folder, spec: BenchSpec, concepts: dict[str, Concept],
    units: Sequence[Unit], until: float, say: Progress,
) -> None:  # fmt: skip
    wanted = _to_make(folder, units)
    done, kit = 0, None
    if not wanted or time.monotonic() > until:
        return
    curves: dict[Site, Curvature] = {}
    texts = dose_texts(folder, model, spec.seed)
    for concept, method in dict.fromkeys((unit.concept, unit.method) for unit in wanted):
        if time.monotonic() > until:
            return
        assert concept is not None
        if kit is None or kit.concept.name != concept:
            kit = Kit(model, tuple(saes), concepts[concept], curves, spec.seed)
        say("making", done, len(wanted))
        mine = [unit for unit in wanted if (unit.concept, unit.method) == (concept, method)]
        make(folder, kit, method, mine, texts)
        done += len(mine)
        say("making", done, len(wanted))


def _write_all(
    model: Model, saes: Sequence[SAE], folder: Folder, spec: BenchSpec, concepts: dict[str, Concept],
    units: Sequence[Unit], until: float, say: Progress,
) -> None:  # fmt: skip
    wanted = [unit for unit in _to_write(folder, units) if unit.budget is None or _is_made(folder, unit)]
    each = len(spec.prompts) * spec.samples * spec.sampling.max_new_tokens
    done = 0
    for group in groups(wanted, spec):
        if time.monotonic() > until:
            return
        after = each * len(wanted) - done - each * len(group)

        def show(_: str, tokens: int, total: int, done: int = done, after: int = after) -> None:
            say("writing", done + tokens, done + total + after)

        write_units(model, folder, spec, {unit: recipe_of(folder, unit, saes) for unit in group}, concepts, show)
        done += each * len(group)


def _judge_all(bench: Bench, concepts: Sequence[Concept], units: Sequence[Unit], until: float, say: Progress) -> None:
    places = _judgements(units, concepts)
    wanted = [
        one for one in places if not bench.folder.file("scores", one[0]).exists() and _is_written(bench.folder, one[2])
    ]
    for done, (path, concept, unit) in enumerate(wanted):
        if time.monotonic() > until:
            return
        say("judging", done, len(wanted))
        judge_unit(bench, path, concept, unit)
        say("judging", done + 1, len(wanted))


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
