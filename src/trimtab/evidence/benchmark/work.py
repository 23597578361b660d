"""What a worker of a benchmark holds, and how it makes, writes and judges one cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.judge import anchors_of, costs, judges_for
from trimtab.evidence.benchmark.kit import Kit
from trimtab.evidence.benchmark.make import Made, make
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.score import Anchor, scored
from trimtab.evidence.benchmark.units import UNSTEERED, BenchSpec, Cell, slug
from trimtab.evidence.benchmark.write import Rows, dose_texts, prompt_of, records_of, write_rows
from trimtab.evidence.judges.judge import Judge
from trimtab.find.gain import Curvature
from trimtab.lm.memory import give_back
from trimtab.scale.store import Store, json_bytes
from trimtab.scale.unit import Do, Part, Tell, Unit
from trimtab.spec import Site
from trimtab.steer.recipe_file import as_bytes

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

PLAIN_TEXTS = f"texts/{UNSTEERED}.json"
DOSE_TEXTS = "texts/dose.json"


def scores_name(cell: Cell) -> str:
    """The file with what judges say of a cell."""
    return f"scores/{cell.id}.json"


@dataclass(frozen=True, eq=False)
class Bench:
    """A benchmark as its workers get it; `store` has the unsteered texts by the time that a cell is worked on.

    saes: the first is the one that single-site methods steer with. witness, independent, endpoint: see `run`.
    """

    store: Store
    model: Model
    saes: tuple[SAE, ...]
    spec: BenchSpec
    batch_size: int
    concepts: Mapping[str, Concept]
    witness: SAE | None
    independent: Model | None
    endpoint: Endpoint | None

    @contextmanager
    def open(self) -> Iterator[Do]:
        """A worker: the models, and what it works out of the texts that all cells need."""
        yield _Worker(self).do


class _Worker:
    """Knows one concept at a time: what methods found in its texts, and its judges."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.curves: dict[Site, Curvature] = {}
        self.known: _Known | None = None

    def do(self, unit: Unit, tell: Tell) -> Part:
        part = self.plain_texts() if unit.work is None else self.cell(unit.work, tell)
        give_back()
        return part

    def plain_texts(self) -> Part:
        bench = self.bench
        prompts = {one: one for one in bench.spec.prompts}
        rows = write_rows(bench.model, bench.spec, bench.batch_size, prompts)
        dose = dose_texts(bench.model, bench.spec, bench.batch_size)
        return Part({PLAIN_TEXTS: json_bytes({"texts": rows}), DOSE_TEXTS: json_bytes(dose)})

    def cell(self, cell: Cell, tell: Tell) -> Part:
        """Make a recipe, write the texts, judge them. `tell` gets the share that is done, and of what."""
        spec, files, about = self.bench.spec, dict[str, bytes](), dict(cell.__dict__)
        tell((0.0, f"{cell.concept}: making {cell.method}"))
        made = self.made(cell)
        texts, rows = PLAIN_TEXTS, self.plain
        if made.recipe is not None:
            files[f"recipes/{cell.id}.recipe.safetensors"] = as_bytes(made.recipe)
        if made.recipe is not None or METHODS[cell.method].prompt is not None:
            texts, rows = f"texts/{cell.id}.json", self.written(cell, made, tell)
            files[texts] = json_bytes({**about, "texts": rows})
        tell((0.6, f"{cell.concept}: judging {cell.method}"))
        known, records = self.of(cell.concept), records_of(rows, spec.seed)
        columns = {judge.name: judge(records) for judge in known.judges}
        numbers = scored(columns, {judge.name: judge for judge in known.judges}, self.anchors)
        found = {**about, "texts": texts, "made": made.about or None, **self.costs(cell, made)}
        found["prompts"] = [one["prompt"] for one in rows]
        found |= {key: [getattr(one, key) for one in numbers] for key in ("concept_score", "fluency_score", "score")}
        files[scores_name(cell)] = json_bytes({**found, "judges": columns})
        if cell.method == UNSTEERED:
            said = [judge.as_dict() for judge in known.judges]
            judges = {"concept": cell.concept, "judges": said, "missing": known.missing}
            files[f"judges/{slug(cell.concept)}.json"] = json_bytes(judges)
        return Part(files)

    def made(self, cell: Cell) -> Made:
        if cell.budget is None:
            return Made(None, {})
        return make(self.of(cell.concept).kit, cell.method, cell.budget, self.dose)

    def written(self, cell: Cell, made: Made, tell: Tell) -> Rows:
        bench, concept = self.bench, self.bench.concepts[cell.concept]
        prompts = {one: prompt_of(cell.method, concept, one, bench.spec.seed) for one in bench.spec.prompts}

        def shown(_: str, tokens: int, of: int) -> None:
            tell((0.3 + 0.3 * tokens / max(1, of), f"{cell.concept}: writing {cell.method}"))

        return write_rows(bench.model, bench.spec, bench.batch_size, prompts, made.recipe, shown)

    def costs(self, cell: Cell, made: Made) -> Mapping[str, float | None]:
        if made.recipe is not None:
            return costs(self.bench.model, made.recipe, records_of(self.plain, self.bench.spec.seed))
        return {"kl": 0.0 if cell.method == UNSTEERED else None, "cross_entropy": None}

    def of(self, name: str) -> _Known:
        if self.known is None or self.known.kit.concept.name != name:
            bench, concept = self.bench, self.bench.concepts[name]
            judges = judges_for(concept, bench.model, bench.witness, bench.independent, bench.endpoint)
            self.known = _Known(Kit(bench.model, bench.saes, concept, self.curves, bench.spec.seed), *judges)
        return self.known

    @cached_property
    def plain(self) -> Rows:
        rows: Rows = self.bench.store.read_json(PLAIN_TEXTS)["texts"]
        return rows

    @cached_property
    def dose(self) -> list[str]:
        texts: list[str] = self.bench.store.read_json(DOSE_TEXTS)
        return texts

    @cached_property
    def anchors(self) -> dict[str, Anchor]:
        return anchors_of(self.bench.model, self.bench.independent, records_of(self.plain, self.bench.spec.seed))


@dataclass(frozen=True, eq=False)
class _Known:
    """What a worker has worked out of a concept, for methods and for judging."""

    kit: Kit
    judges: list[Judge]
    missing: list[str]
