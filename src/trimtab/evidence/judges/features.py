"""Feature re-activation: the text goes back through the unsteered model, and an SAE is read where it was generated.

Circular when the SAE that steers also judges, so the judge may be another SAE at another block: which of its features
carry the concept is then learned from labelled texts, and tried on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.evidence.judges.judge import Judge, Learn, Score, Scorer, learned
from trimtab.evidence.trace import bos_length, trace
from trimtab.find.pairs import ContrastSet
from trimtab.find.stats import separation
from trimtab.steer.generate import Record

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

CARRIERS = 16
"""Features that may carry a concept together: enough to cover its facets, few enough that noise does not add up."""


def reactivation(model: Model, sae: SAE, weights: Mapping[int, float]) -> Judge:
    """The mean over a text's tokens of sum_i weights[i] * f_i, such as of the features of a recipe."""
    return Judge(
        f"re-activation of {sae.name}", "mean activation of the recipe's own features", reader(model, sae, weights)
    )


def carrier_judge(model: Model, sae: SAE, contrast: ContrastSet, held: ContrastSet | None = None) -> Judge:
    """A judge by the features of `sae` that carry the concept in `contrast`, at most `CARRIERS`, of either side.

    The score is the mean over a text's tokens of the features' activations, each in standard deviations over the texts
    that it was learned from, those of the negative side counted down.
    """
    name = f"features of {sae.name}"
    about = f"mean activation of up to {CARRIERS} features of {sae.name} that carry the concept, in deviations"
    return learned(name, about, learner(model, sae), contrast, held, model=model)


def learner(model: Model, sae: SAE) -> Learn:
    """What learns the carriers: the features of largest rank separation among those that fire on enough texts."""

    def learn(contrast: ContrastSet) -> Scorer:
        return reader(model, sae, carriers(model, sae, contrast))

    return learn


def carriers(model: Model, sae: SAE, contrast: ContrastSet, limit: int = CARRIERS) -> dict[int, float]:
    """Weights (sign over standard deviation) by feature of the best separating features; {} when there are none.

    A feature counts from a two-sided p of 0.01 on, by its mean over the tokens of each text.
    """
    from trimtab.find.contrast import collect

    acts = collect(model, sae, contrast, template=False)[0]
    fires = np.asarray((acts.positive.latents > 0).sum(0) + (acts.negative.latents > 0).sum(0)).ravel()
    columns = np.flatnonzero(fires >= max(3, 0.05 * (len(contrast.positive) + len(contrast.negative))))
    if not len(columns):
        return {}
    pos, neg = (side.latents[:, columns].toarray() for side in (acts.positive, acts.negative))
    found = separation(pos, neg)
    spread = np.concatenate([pos, neg]).std(0)
    order = np.argsort(-np.abs(found.auc - 0.5), kind="stable")
    best = [i for i in order if found.p[i] < 0.01 and spread[i] > 0][:limit]
    return {int(columns[i]): float(np.sign(found.auc[i] - 0.5) / spread[i]) for i in best}


def reader(model: Model, sae: SAE, weights: Mapping[int, float]) -> Scorer:
    """Scores by a weighted sum of activations; everything is unscored where there are no weights or no tokens."""
    features, pulls = list(weights), torch.tensor(list(weights.values()), dtype=torch.float32)

    def read(records: Sequence[Record]) -> list[Score]:
        scores: list[Score] = [None] * len(records)
        rows = [i for i, one in enumerate(records) if len(one.token_ids) > one.generated_from]
        if any(one.text.strip() and not one.token_ids for one in records):
            raise InputError("Reading features needs the token ids of the texts: see `texts_as_records`.")
        if features and rows:
            found = trace(model, sae, features, [records[i].token_ids for i in rows])
            for i, values in zip(rows, found, strict=True):
                scores[i] = float((_generated(model, records[i], values) @ pulls).mean())
        return scores

    return read


def _generated(model: Model, one: Record, values: Tensor) -> Tensor:
    return values[one.generated_from - bos_length(model, one.token_ids) :]
