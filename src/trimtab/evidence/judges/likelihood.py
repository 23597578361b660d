"""Witnesses on fixed texts, which nothing is generated for: what a recipe does to the likelihood of the concept's own
texts, and to neutral ones (its side effects).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.evidence.trace import bos_length, refuse_edited
from trimtab.find.effect import NEUTRAL, difference_interval, token_groups

if TYPE_CHECKING:
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe


@dataclass(frozen=True)
class LikelihoodChange:
    """Change of log-likelihood under a recipe, nats per token: `shift` is that of positive minus that of negative
    texts, with its 95 % bootstrap interval over pairs (over texts where there are none); then its two parts.
    """

    shift: float
    low: float
    high: float
    positive: float
    negative: float


@dataclass(frozen=True)
class SideEffects:
    """What a recipe does to neutral texts, per token but BOS, in nats: mean KL(steered || unsteered) of the next-token
    distribution, and the change of cross-entropy on the texts (above 0: the model predicts them worse).
    """

    kl: float
    cross_entropy: float


def likelihood_change(model: Model, recipe: Recipe, held: ContrastSet) -> LikelihoodChange:
    """What `recipe`, at its own strength, does to the likelihood of held-out texts of the concept.

    The judge-free measure of Pres et al. (2410.17245). `find.effect.likelihood_shift` is its counterpart for bare
    vectors at a matched KL.
    """
    texts = [*held.positive, *held.negative]
    change = (text_likelihoods(model, texts, recipe) - text_likelihoods(model, texts, None)).numpy()
    pos, neg = change[: len(held.positive)], change[len(held.positive) :]
    low, high = difference_interval(pos, neg, held.paired)
    return LikelihoodChange(float(pos.mean() - neg.mean()), low, high, float(pos.mean()), float(neg.mean()))


@torch.no_grad()
def text_likelihoods(model: Model, texts: Sequence[str], recipe: Recipe | None) -> Tensor:
    """Mean log-likelihood per token of every text, [texts], float64, in nats, with `recipe` at work."""
    refuse_edited(model)
    ids = [model.encode(text) for text in texts]
    result = torch.zeros(len(ids), dtype=torch.float64)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for rows in token_groups([len(ids[i]) for i in order]):
        mine = [order[i] for i in rows]
        tokens, mask = model.pad([ids[i] for i in mine], side="right")
        with model.edited([recipe] * len(mine), record=False):
            logits = model.hf(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        own = logits[:, :-1].float().log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].double()
        real = mask[:, 1:].bool()
        result[mine] = ((own * real).sum(1) / real.sum(1).clamp(min=1)).cpu()
    return result


@torch.no_grad()
def side_effects(model: Model, recipes: Sequence[Recipe], texts: Sequence[str] = NEUTRAL) -> list[SideEffects]:
    """KL and change of cross-entropy of each recipe on neutral texts; each text is read once, one row per recipe."""
    if not texts or not recipes:
        raise InputError("Side effects need at least one recipe and one neutral text.")
    refuse_edited(model)
    sums = torch.zeros(len(recipes), 2, dtype=torch.float64)
    tokens = predicted = 0
    for text in texts:
        row = model.encode_prompt(text)
        skip = bos_length(model, row)
        ids = torch.tensor([row] * (len(recipes) + 1), device=model.device)
        with model.edited([None, *recipes], record=False):
            logits = model.hf(input_ids=ids, use_cache=False).logits.float()
        plain = logits[0].log_softmax(-1)
        following = ids[0, 1:, None]
        for i, steered in enumerate(logits[1:]):
            said = steered.log_softmax(-1)
            sums[i, 0] += (said[skip:].exp() * (said[skip:] - plain[skip:])).sum().double().cpu()
            sums[i, 1] += (plain[:-1].gather(-1, following) - said[:-1].gather(-1, following)).sum().double().cpu()
        tokens += len(row) - skip
        predicted += len(row) - 1
    return [SideEffects(kl / max(1, tokens), ce / max(1, predicted)) for kl, ce in sums.tolist()]
