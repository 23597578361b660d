"""Judging: the judges of a concept, and what everything else is measured against."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtab.errors import UnsupportedError
from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.score import LIKELIHOODS, Anchor
from trimtab.evidence.judges.chat import chat_judges
from trimtab.evidence.judges.classifier import classifier
from trimtab.evidence.judges.embedding import embedding_judge
from trimtab.evidence.judges.features import carrier_judge
from trimtab.evidence.judges.fluency import fluency_judges
from trimtab.evidence.judges.judge import Judge
from trimtab.evidence.judges.likelihood import side_effects
from trimtab.evidence.judges.words import word_judge
from trimtab.steer.generate import Record
from trimtab.steer.kl import kl_by_text

if TYPE_CHECKING:
    from trimtab.endpoint import Endpoint
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

PLACES = 16
"""Tokens of each unsteered text at which the KL of a recipe is measured."""


def judges_for(
    concept: Concept, model: Model, witness: SAE | None, independent: Model | None, endpoint: Endpoint | None
) -> tuple[list[Judge], list[str]]:
    """The judges of a concept, and why some are missing: the embedding judge needs a package."""
    held = concept.held
    made, missing = [classifier(held), word_judge(held)], []
    try:
        made.append(embedding_judge(held))
    except UnsupportedError as error:
        missing.append(str(error))
    if witness is not None:
        made.append(carrier_judge(model, witness, held))
    made += fluency_judges(model, independent)
    if endpoint is not None:
        made += chat_judges(endpoint, concept.phrase)
    return made, missing


def costs(model: Model, recipe: Recipe, plain: Sequence[Record]) -> dict[str, float]:
    """KL on the unsteered texts, one a prompt, and the change of cross-entropy on neutral texts."""
    sums, counts = kl_by_text(model, [recipe], [one.token_ids for one in plain if one.sample == 0], PLACES)
    effect = side_effects(model, [recipe])[0]
    return {"kl": float(sums.sum() / counts.sum()), "cross_entropy": effect.cross_entropy}


def anchors_of(model: Model, independent: Model | None, plain: Sequence[Record]) -> dict[str, Anchor]:
    """What fluency is measured against: the unsteered texts, and the same with their tokens shuffled."""
    mixed = [_mixed(model, one) for one in plain]
    judges = [judge for judge in fluency_judges(model, independent) if judge.name in LIKELIHOODS]
    return {judge.name: Anchor(_mean(judge(plain)), _mean(judge(mixed))) for judge in judges}


def _mixed(model: Model, one: Record) -> Record:
    new = list(one.token_ids[one.generated_from :])
    random.Random(f"{one.prompt} {one.sample}").shuffle(new)
    return replace(one, text=model.decode(new), token_ids=(*one.token_ids[: one.generated_from], *new))


def _mean(scores: Sequence[float | None]) -> float:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known)
