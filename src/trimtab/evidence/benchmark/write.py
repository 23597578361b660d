"""Writing the texts of many units at once: every row of a batch has its own recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.units import BenchSpec, Folder, Unit
from trimtab.evidence.write import Line, write
from trimtab.files import read_json, write_json
from trimtab.steer.generate import Record
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.lm.model import Model

ROWS_AT_ONCE = 640
"""Texts that are written before their units are stored: a few batches, so that little is lost when a run is killed."""


def groups(units: Sequence[Unit], spec: BenchSpec) -> list[list[Unit]]:
    """Units in groups that are written together."""
    size = max(1, ROWS_AT_ONCE // (len(spec.prompts) * spec.samples))
    return [list(units[i : i + size]) for i in range(0, len(units), size)]


def write_units(
    model: Model,
    folder: Folder,
    spec: BenchSpec,
    units: Mapping[Unit, Recipe | None],
    concept: Concept,
    progress: Callable[[str, int, int], None] | None = None,
) -> None:
    """Write all texts of `units` of one concept (with the recipe of each), then store each unit.

    A prompt and a sample number give the same random numbers in every unit. Of a rewritten prompt only the opener that
    it ends in is stored, so that judges, and the unsteered model, read its texts like all others.
    """
    places = [(unit, opener, sample) for unit in units for opener in spec.prompts for sample in range(spec.samples)]
    lines = [Line(_prompt(unit, opener, concept, spec), sample, units[unit]) for unit, opener, sample in places]
    written = write(model, lines, spec.sampling, spec.seed, progress)
    openers = {opener: model.encode_prompt(opener) for opener in spec.prompts}
    texts: dict[Unit, list[dict[str, Any]]] = {unit: [] for unit in units}
    for (unit, opener, sample), (ids, start) in zip(places, written, strict=True):
        before, new = openers[opener], ids[start:]
        texts[unit].append(
            {"prompt": opener, "sample": sample, "text": model.decode(new), "token_ids": [*before, *new],
             "start": len(before)}
        )  # fmt: skip
    for unit, rows in texts.items():
        recipe = units[unit]
        digest = None if recipe is None else recipe.digest
        write_json(folder.file("texts", unit.path), {**unit.as_dict(), "recipe": digest, "texts": rows})


def read_texts(folder: Folder, unit: Unit, spec: BenchSpec) -> list[Record]:
    """The texts of a unit as records that say nothing of what wrote them."""
    texts = read_json(folder.file("texts", unit.path))["texts"]
    return [
        Record(
            one["prompt"], one["text"], tuple(one["token_ids"]), one["start"],
            recipe=None, seed=spec.seed, sample=one["sample"], finished="length",
        )
        for one in texts
    ]  # fmt: skip


def _prompt(unit: Unit, opener: str, concept: Concept, spec: BenchSpec) -> str:
    rewrite = METHODS[unit.method].prompt
    if rewrite is None or unit.concept is None:
        return opener
    return rewrite(concept, opener, spec.seed)
