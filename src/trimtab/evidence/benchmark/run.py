"""The whole benchmark as a run folder: each cell is a unit, made, written and judged completely or not at all.

    run.json               settings, and every cell that was ever asked for: a folder may be added to
    texts/unsteered.json   what all cells need: unsteered texts, and those that doses are chosen on (texts/dose.json)
    recipes/CELL.recipe.safetensors, texts/CELL.json, scores/CELL.json, judges/CONCEPT.json

Concept by concept, so that a run that is stopped has some concepts complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.units import KIND, PLAIN, UNSTEERED, BenchSpec, Cell
from trimtab.evidence.benchmark.work import Bench
from trimtab.evidence.benchmark.write import DOSE_TOKENS, prompt_of
from trimtab.evidence.judges.embedding import installed
from trimtab.evidence.trace import refuse_edited
from trimtab.sae.load import check_fits
from trimtab.scale.folder import Entry, RunFolder, pace
from trimtab.scale.run import LOCAL, Done, On, Say, run_units, sound
from trimtab.scale.store import Store, open_store
from trimtab.scale.unit import Tell
from trimtab.steer.parts import about_model, choose_batch

if TYPE_CHECKING:
    from os import PathLike

    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Progress = Callable[[str, float, float, str], None]
"""Called with a title, how many cells are done, how many there are, and what is being done."""


@dataclass(frozen=True)
class Left:
    """What is still to do: cells, tokens (at most) to write, and the seconds that takes at the pace of the folder so
    far, None where it has none yet.
    """

    cells: tuple[Cell, ...]
    tokens: int
    seconds: float | None = None


def folder_of(place: str | PathLike[str] | Store) -> RunFolder:
    """A benchmark's folder, which need not be there yet."""
    return RunFolder(open_store(place), KIND)


def left(folder: RunFolder, cells: Sequence[Cell], spec: BenchSpec, there: Mapping[str, Entry] | None = None) -> Left:
    """What a run would still have to do. `there`: what is known to be done and sound."""
    there = sound(folder) if there is None else there
    rest = tuple(cell for cell in cells if cell.id not in there)
    written = sum(cell.method != UNSTEERED for cell in rest)
    tokens = written * spec.rows * spec.sampling.max_new_tokens
    if PLAIN.id not in there and rest:
        tokens += spec.rows * spec.sampling.max_new_tokens + len(spec.dose_prompts) * DOSE_TOKENS
    each = pace(folder.store)
    return Left(rest, tokens, None if each is None else each * len(rest))


def run(
    model: Model,
    saes: Sequence[SAE],
    place: str | PathLike[str] | Store,
    spec: BenchSpec,
    concepts: Sequence[Concept],
    cells: Sequence[Cell],
    *,
    witness: SAE | None = None,
    independent: Model | None = None,
    endpoint: Endpoint | None = None,
    on: On = LOCAL,
    seconds: float | None = None,
    progress: Progress = lambda *_: None,
    say: Say = lambda _: None,
) -> Left:
    """Do what is left of `cells`, for about `seconds` at most; what is left then.

    saes: the first is the one that single-site methods steer with; all are used by methods of several layers.
    witness: an SAE whose features judge beside the words. independent: another model that judges fluency.
    on: where cells are done; the unsteered texts that all need are written here.
    Raises `MismatchError` for a folder with other models, SAEs, judges or settings, or other texts of a concept, and
    `UnsupportedError` when the model is being edited.
    """
    for sae in saes:
        check_fits(sae, model)
    refuse_edited(model)
    folder = folder_of(place)
    batch_size = choose_batch(model, _longest(model, spec, concepts), spec.rows, None, folder.manifest())
    named = {concept.name: concept for concept in concepts}
    bench = Bench(folder.store, model, tuple(saes), spec, batch_size, named, witness, independent, endpoint)
    for note in folder.begin(*manifest_of(bench, cells)):
        say(note)
    there = sound(folder, say)
    rest = left(folder, cells, spec, there)
    until = float("inf") if seconds is None else time.monotonic() + seconds
    count, steps = 0, len(rest.cells) + (PLAIN.id not in there)

    def told(news: Any) -> None:
        progress("benchmark", count + news[0], steps, news[1])

    if rest.cells and time.monotonic() < until:
        with closing(_each(bench, folder, rest.cells, on, there, told, say)) as doing:
            for done in doing:
                count += done.fresh
                there[done.unit.id] = done.entry
                if done.fresh:
                    progress("benchmark", count, steps, done.unit.id)
                if time.monotonic() >= until:
                    break
    return left(folder, cells, spec, there)


def _each(
    bench: Bench, folder: RunFolder, cells: Sequence[Cell], on: On, there: Mapping[str, Entry], tell: Tell, say: Say
) -> Generator[Done]:
    """Every cell in order, the texts that all need first, which are written here."""
    yield from run_units(bench.open, [PLAIN], folder, there=there, tell=tell, say=say)
    yield from run_units(bench.open, [cell.unit for cell in cells], folder, on, there=there, tell=tell, say=say)


def manifest_of(bench: Bench, cells: Sequence[Cell]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What is the same for all cells of a folder, and what may be added to."""
    names = [{"name": sae.name, "fingerprint": sae.fingerprint, "site": str(sae.site)} for sae in bench.saes]
    fixed = {
        "spec": bench.spec.model_dump(mode="json"),
        "model": about_model(bench.model),
        "saes": {str(number): name for number, name in enumerate(names)},
        "judges": {
            "embedding": installed(),
            "features": None if bench.witness is None else bench.witness.fingerprint,
            "fluency": None if bench.independent is None else about_model(bench.independent),
            "asked": None if bench.endpoint is None else bench.endpoint.model,
        },
        "device": bench.model.device.type,
        "batch_size": bench.batch_size,
    }
    concepts = {one.name: {"phrase": one.phrase, "texts": one.digest} for one in bench.concepts.values()}
    units = {PLAIN.id: None} | {cell.id: [cell.concept, cell.method, cell.budget] for cell in cells}
    return fixed, {"concepts": concepts, "units": units}


def _longest(model: Model, spec: BenchSpec, concepts: Sequence[Concept]) -> int:
    """Tokens of the longest text that any method may have written."""
    prompts = {
        prompt_of(method, concept, opener, spec.seed)
        for method in METHODS for concept in concepts for opener in spec.prompts
    }  # fmt: skip
    return max(len(model.encode(one)) for one in prompts) + spec.sampling.max_new_tokens
