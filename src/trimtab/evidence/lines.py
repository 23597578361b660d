"""A few texts at several strengths of one recipe, from the same random numbers, read back by the unsteered model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from trimtab.evidence.trace import bos_length, log_likelihoods, trace
from trimtab.lm.pieces import pieces
from trimtab.steer.generate import generate

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.generate import Record
    from trimtab.steer.recipe import Recipe

PROMPTS = ("Once upon a time", "The first thing I noticed was", "Yesterday")


@dataclass(frozen=True)
class Line:
    """One text. factor: multiple of the recipe's strength, 0 for the unsteered text. tokens: the generated ones.

    strengths: per token, the sum over the features that the recipe adds, or is read with, of activation times length of
    decoder row, in residual units (None: there are none). log_likelihood: nats per generated token under the unsteered
    model, None where nothing was written.
    """

    prompt: str
    factor: float
    sample: int
    tokens: tuple[str, ...]
    strengths: tuple[float, ...] | None
    log_likelihood: float | None

    @property
    def text(self) -> str:
        """The generated text."""
        return "".join(self.tokens)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the text and the mean strength."""
        return {**asdict(self), "text": self.text, "strength": self.strength}

    @property
    def strength(self) -> float | None:
        """Mean strength over tokens."""
        if self.strengths is None or not self.strengths:
            return None
        return sum(self.strengths) / len(self.strengths)


def steered_lines(
    model: Model,
    saes: Sequence[SAE],
    recipe: Recipe,
    prompts: Sequence[str] = PROMPTS,
    factors: Sequence[float] = (-1.0, 0.0, 1.0),
    *,
    samples: int = 1,
    max_new_tokens: int = 40,
    temperature: float = 0.8,
    seed: int = 0,
) -> list[Line]:
    """Texts at each of `factors` times the recipe, all in one batch; prompt by prompt, then factor by factor.

    Texts of one prompt and sample number come from the same random numbers, so they can be compared. None is picked.
    """
    plan = [(prompt, factor) for prompt in prompts for factor in factors]
    recipes = [recipe * factor if factor else None for _, factor in plan]
    records = generate(
        model, [prompt for prompt, _ in plan], recipes, samples=samples, max_new_tokens=max_new_tokens,
        temperature=temperature, seed=seed,
    )  # fmt: skip
    factors_of = [factor for _, factor in plan for _ in range(samples)]
    strengths = _strengths(model, saes, recipe, records)
    likely = log_likelihoods(model, [one.token_ids for one in records], [one.generated_from for one in records])
    return [
        Line(
            one.prompt, factor, one.sample, tuple(pieces(model, one.token_ids, one.generated_from)), strong,
            float(lls.mean()) if len(lls) else None,
        )
        for one, factor, strong, lls in zip(records, factors_of, strengths, likely, strict=True)
    ]  # fmt: skip


def _strengths(
    model: Model, saes: Sequence[SAE], recipe: Recipe, records: Sequence[Record]
) -> list[tuple[float, ...]] | list[None]:
    ids = [one.token_ids for one in records]
    total: list[torch.Tensor] = []
    for sae in saes:
        added = [feature for feature, strength in recipe.reads(sae).items() if strength > 0]
        if not added:
            continue
        lengths = sae.rows(added).norm(dim=-1).cpu()
        mine = [found @ lengths for found in trace(model, sae, added, ids)]
        total = [a + b for a, b in zip(total, mine, strict=True)] if total else mine
    if not total:
        return [None] * len(records)
    starts = [one.generated_from - bos_length(model, one.token_ids) for one in records]
    return [tuple(values[start:].tolist()) for values, start in zip(total, starts, strict=True)]
