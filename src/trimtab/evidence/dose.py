"""How far a recipe moves the model's predictions on text that has nothing to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from trimtab.errors import InputError
from trimtab.evidence.trace import bos_length, refuse_edited

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.steer.recipe import Recipe


@torch.no_grad()
def mean_kl(model: Model, recipes: Sequence[Recipe], texts: Sequence[str]) -> list[float]:
    """Mean KL(steered || unsteered) of the next-token distribution, in nats, over all tokens of `texts` but BOS.

    One number per recipe. Every text is read once, in a batch with one row per recipe beside an unsteered row.
    """
    if not texts or not recipes:
        raise InputError("A dose needs at least one recipe and one neutral text.")
    refuse_edited(model)
    total = torch.zeros(len(recipes), dtype=torch.float64)
    tokens = 0
    for text in texts:
        row = model.encode_prompt(text)
        ids = torch.tensor([row] * (len(recipes) + 1), device=model.device)
        with model.edited([None, *recipes], record=False):
            logits = model.hf(input_ids=ids, use_cache=False).logits[:, bos_length(model, row) :].float()
        plain = logits[0].log_softmax(-1)
        for i, steered in enumerate(logits[1:]):
            said = steered.log_softmax(-1)
            total[i] += (said.exp() * (said - plain)).sum().double().cpu()
        tokens += plain.shape[0]
    return (total / max(1, tokens)).tolist()


def strongest_within(strengths: Sequence[float], kls: Sequence[float], budget: float) -> float | None:
    """The largest strength up to which no smaller one of the grid has a KL over `budget`; None when all have."""
    chosen = None
    for strength, kl in sorted(zip(strengths, kls, strict=True)):
        if kl > budget:
            break
        chosen = strength
    return chosen
