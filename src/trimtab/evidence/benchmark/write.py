"""Writing the texts of a cell, in batches of their own: what else is being written does not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.units import BenchSpec
from trimtab.evidence.write import Line, write
from trimtab.steer.generate import Record, generate

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe

DOSE_TOKENS = 32
"""Length of the unsteered texts on which strengths are chosen."""

Rows = list[dict[str, Any]]


def prompt_of(method: str, concept: Concept, opener: str, seed: int) -> str:
    """What is written on: the opener, or what a method without a recipe makes of it."""
    rewrite = METHODS[method].prompt
    return opener if rewrite is None else rewrite(concept, opener, seed)


def write_rows(
    model: Model,
    spec: BenchSpec,
    batch_size: int,
    prompts: Mapping[str, str],
    recipe: Recipe | None = None,
    tell: Callable[[str, int, int], None] | None = None,
) -> Rows:
    """The texts of a cell as they are stored. `prompts`: for each opener, what is written on.

    An opener and a sample number give the same random numbers in every cell. Of a rewritten prompt only the opener that
    it ends in is stored, so that judges, and the unsteered model, read its texts like all others.
    """
    places = [(opener, sample) for opener in spec.prompts for sample in range(spec.samples)]
    lines = [Line(prompts[opener], sample, recipe) for opener, sample in places]
    written = write(model, lines, spec.sampling, spec.seed, tell, batch_size)
    openers = {opener: model.encode_prompt(opener) for opener in spec.prompts}
    out = []
    for (opener, sample), (ids, start) in zip(places, written, strict=True):
        before, new = openers[opener], ids[start:]
        out.append(
            {"prompt": opener, "sample": sample, "text": model.decode(new), "token_ids": [*before, *new],
             "start": len(before)}
        )  # fmt: skip
    return out


def dose_texts(model: Model, spec: BenchSpec, batch_size: int) -> list[str]:
    """One unsteered text for each of the prompts that strengths are chosen on, prompt included."""
    room = DOSE_TOKENS
    if model.context is not None:
        room = min(room, model.context - max(len(model.encode(one)) for one in spec.dose_prompts))
    records = generate(model, spec.dose_prompts, max_new_tokens=room, seed=spec.seed, batch_size=batch_size)
    return [record.prompt + record.text for record in records]


def records_of(rows: Sequence[Mapping[str, Any]], seed: int) -> list[Record]:
    """Stored texts as records that say nothing of what wrote them."""
    return [
        Record(
            one["prompt"], one["text"], tuple(one["token_ids"]), one["start"],
            recipe=None, seed=seed, sample=one["sample"], finished="length",
        )
        for one in rows
    ]  # fmt: skip
