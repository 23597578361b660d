"""Judging units: the judges of each concept, made once, and everything that is measured of a unit."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trimtab.errors import UnsupportedError
from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.make import recipe_of
from trimtab.evidence.benchmark.score import LIKELIHOODS, Anchor, scored
from trimtab.evidence.benchmark.units import UNSTEERED, BenchSpec, Folder, Unit
from trimtab.evidence.benchmark.write import read_texts
from trimtab.evidence.judges.chat import chat_judges
from trimtab.evidence.judges.classifier import classifier
from trimtab.evidence.judges.embedding import embedding_judge
from trimtab.evidence.judges.features import carrier_judge
from trimtab.evidence.judges.fluency import fluency_judges
from trimtab.evidence.judges.judge import Judge
from trimtab.evidence.judges.likelihood import side_effects
from trimtab.evidence.judges.words import word_judge
from trimtab.files import write_json
from trimtab.steer.generate import Record
from trimtab.steer.kl import kl_by_text

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

PLACES = 16
"""Tokens of each unsteered text at which the KL of a recipe is measured."""


@dataclass(frozen=True, eq=False)
class Bench:
    """What judging needs, of one run."""

    model: Model
    saes: tuple[SAE, ...]
    folder: Folder
    spec: BenchSpec
    witness: SAE | None
    independent: Model | None
    endpoint: Endpoint | None


def judge_unit(bench: Bench, path: str, concept: Concept, unit: Unit) -> None:
    """Score all texts of a unit and measure what its recipe costs; write it down."""
    judges, anchors = judges_of(bench, concept), anchors_of(bench)
    texts = read_texts(bench.folder, unit, bench.spec)
    columns = {name: judge(texts) for name, judge in judges.items()}
    numbers = scored(columns, judges, anchors)
    found: dict[str, Any] = {**unit.as_dict(), "concept": concept.name, **_costs(bench, unit)}
    found["prompts"] = [text.prompt for text in texts]
    found |= {key: [getattr(one, key) for one in numbers] for key in ("concept_score", "fluency_score", "score")}
    write_json(bench.folder.file("scores", path), {**found, "judges": columns})


def _costs(bench: Bench, unit: Unit) -> dict[str, float | None]:
    """KL on the test prompts' unsteered texts, one a prompt, and the change of cross-entropy on neutral texts."""
    recipe = recipe_of(bench.folder, unit, bench.saes)
    if recipe is None:
        return {"kl": 0.0 if unit.method == UNSTEERED else None, "cross_entropy": None}
    texts = [one for one in _unsteered(bench) if one.sample == 0]
    sums, counts = kl_by_text(bench.model, [recipe], [one.token_ids for one in texts], PLACES)
    effect = side_effects(bench.model, [recipe])[0]
    return {"kl": float(sums.sum() / counts.sum()), "cross_entropy": effect.cross_entropy}


@lru_cache(maxsize=1)
def judges_of(bench: Bench, concept: Concept) -> dict[str, Judge]:
    """The judges of a concept by name, and what they are in `judges/NAME.json`.

    Without the package of the embedding judge, that one is left out and said to be.
    """
    held, model = concept.held, bench.model
    made = [classifier(held), word_judge(held)]
    missing = []
    try:
        made.append(embedding_judge(held))
    except UnsupportedError as error:
        missing.append(str(error))
    sae = bench.witness
    if sae is not None:
        made.append(carrier_judge(model, sae, held))
    made += fluency_judges(model, bench.independent)
    if bench.endpoint is not None:
        made += chat_judges(bench.endpoint, concept.phrase)
    path = bench.folder.file("judges", Unit(concept.name, "judges", None).path)
    write_json(path, {"concept": concept.name, "judges": [judge.as_dict() for judge in made], "missing": missing})
    return {judge.name: judge for judge in made}


@lru_cache(maxsize=1)
def anchors_of(bench: Bench) -> dict[str, Anchor]:
    """What fluency is measured against: the unsteered texts, and the same with their tokens shuffled."""
    texts = _unsteered(bench)
    mixed = [_mixed(bench.model, one) for one in texts]
    found = {}
    for judge in fluency_judges(bench.model, bench.independent):
        if judge.name in LIKELIHOODS:
            means = [_mean(judge(some)) for some in (texts, mixed)]
            found[judge.name] = Anchor(*means)
    return found


def _mixed(model: Model, one: Record) -> Record:
    new = list(one.token_ids[one.generated_from :])
    random.Random(f"{one.prompt} {one.sample}").shuffle(new)
    return replace(one, text=model.decode(new), token_ids=(*one.token_ids[: one.generated_from], *new))


def _unsteered(bench: Bench) -> list[Record]:
    return read_texts(bench.folder, Unit(None, UNSTEERED, None), bench.spec)


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known)
