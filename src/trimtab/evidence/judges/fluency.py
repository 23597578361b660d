"""Fluency: how likely the text is to a language model, how varied, and how much it repeats itself.

Likelihood alone rewards repetition and variety alone rewards noise, so neither is meant to stand without the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.evidence.judges.judge import Judge, Score, Scorer
from trimtab.evidence.stats import distinct, repetition
from trimtab.evidence.trace import log_likelihoods
from trimtab.steer.generate import Record

if TYPE_CHECKING:
    from trimtab.lm.model import Model


def fluency_judges(model: Model, independent: Model | None = None) -> list[Judge]:
    """Log-likelihood under the unsteered `model` (and an `independent` one), distinct-1, -2, -3, and repetition."""
    judges = [Judge("log-likelihood", "nats per token under the unsteered model", likelihood(model))]
    if independent is not None:
        about = f"nats per token under {independent.name}, in its own tokens"
        judges.append(Judge("independent log-likelihood", about, likelihood(independent, own_tokens=True)))
    for n in (1, 2, 3):
        about = f"share of a text's {n}-grams of tokens that differ from each other"
        judges.append(Judge(f"distinct-{n}", about, _grams(n, repeated=False), share=True))
    about = "share of a text's 4-grams of tokens that occurred in it before"
    judges.append(Judge("repetition", about, _grams(4, repeated=True), good=-1, share=True))
    return judges


def likelihood(model: Model, own_tokens: bool = False) -> Scorer:
    """Mean log-probability per token of the text after its prompt, in nats; exp(-score) is the perplexity.

    own_tokens: the text was written by another model, so prompt and text are tokenised again.
    """

    def read(records: Sequence[Record]) -> list[Score]:
        pairs = [_again(model, one) if own_tokens else (one.token_ids, one.generated_from) for one in records]
        scores: list[Score] = [None] * len(records)
        rows = [i for i, (ids, start) in enumerate(pairs) if len(ids) > max(1, start)]
        found = log_likelihoods(model, [pairs[i][0] for i in rows], [pairs[i][1] for i in rows]) if rows else []
        for i, values in zip(rows, found, strict=True):
            scores[i] = float(values.double().mean())
        return scores

    return read


def _again(model: Model, one: Record) -> tuple[tuple[int, ...], int]:
    """Token ids of prompt and text, cut to the model's context, and where the first token with text in it is."""
    before, ids = model.encode(one.prompt), model.encode(one.prompt + one.text)
    start = 0
    while start < min(len(before), len(ids)) and before[start] == ids[start]:
        start += 1
    if model.context is not None and start >= model.context:
        raise InputError(f"A prompt of {start} tokens leaves no room in the {model.context} of {model.name}.")
    return tuple(ids[: model.context]), start


def _grams(n: int, repeated: bool) -> Scorer:
    share = repetition if repeated else distinct

    def read(records: Sequence[Record]) -> list[Score]:
        return [share(one.token_ids[one.generated_from :], n) for one in records]

    return read
