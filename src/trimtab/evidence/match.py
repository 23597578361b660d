"""Arms at the same cost: every control is made as strong as moves the model's predictions as far as the recipe does.

The cost is the mean KL(steered || unsteered) in nats per token on neutral texts (`trimtab.steer.kl`). Each draw of a
control is measured on a few of the texts and brought to what the recipe costs on those very texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.steer.kl import kl_by_text
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.strength import scaled

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.steer.recipe import Recipe

TEXTS = 12
TOKENS = 32
PLACES = 4
"""Of the first `TEXTS` neutral texts the first `TOKENS` tokens are read, and predictions compared at `PLACES`."""

GROUPS = 4
"""An arm of several draws measures each on one part in `GROUPS` of the texts."""

REACHED = 0.25
"""An arm is at the recipe's KL when its mean KL is within this share of it."""

_CLOSE = 0.1
_ROUNDS = 6
_STEP, _MOST = 8.0, 64.0  # how far a factor may go in one round, and in all


@dataclass(frozen=True)
class Matched:
    """The draws of an arm at the recipe's cost: `kl` is their mean, `wanted` the recipe's, `factors` what each was
    multiplied by (empty where its operation has no strength).
    """

    recipes: tuple[Recipe, ...]
    kl: float
    wanted: float
    factors: tuple[float, ...]

    @property
    def reached(self) -> bool:
        """Whether the arm costs as much as the recipe."""
        return same_cost(self.kl, self.wanted)


def same_cost(kl: float, wanted: float) -> bool:
    """Whether `kl` is within `REACHED` of `wanted`."""
    return abs(kl - wanted) <= REACHED * wanted + 1e-6


def neutral_ids(model: Model) -> list[list[int]]:
    """The neutral texts as they are read here."""
    most = TOKENS if model.context is None else min(TOKENS, model.context)
    return [model.encode(text)[:most] for text in NEUTRAL[:TEXTS]]


def cost_of(model: Model, recipe: Recipe) -> float:
    """Mean KL of a recipe on the neutral texts, nats per token; 0 where its scope selects none of their tokens."""
    return float(_costs(model, [recipe], neutral_ids(model))[0])


def at_same_cost(model: Model, recipe: Recipe, draws: Sequence[Recipe]) -> Matched:
    """Each of `draws` multiplied by what brings it to the recipe's cost, or as near as was found."""
    ids = neutral_ids(model)
    parts = min(GROUPS, len(draws))
    found: list[tuple[Recipe, float, float, float | None]] = [(recipe, 0.0, 0.0, None)] * len(draws)
    for part in range(parts):
        found[part::parts] = _bring(model, recipe, draws[part::parts], ids[part::parts])
    return Matched(
        recipes=tuple(one[0] for one in found),
        kl=sum(one[1] for one in found) / len(found),
        wanted=sum(one[2] for one in found) / len(found),
        factors=tuple(one[3] for one in found if one[3] is not None),
    )


def _bring(
    model: Model, recipe: Recipe, draws: Sequence[Recipe], ids: Sequence[Sequence[int]]
) -> list[tuple[Recipe, float, float, float | None]]:
    """For each draw: itself at its best factor, its cost there, the cost wanted, and the factor."""
    costs = _costs(model, [recipe, *draws], ids)
    wanted, now = float(costs[0]), costs[1:]
    if wanted < 1e-6 or not all(_has_strength(draw) for draw in draws):
        return [(draw, float(kl), wanted, None) for draw, kl in zip(draws, now, strict=True)]
    factors = torch.ones(len(draws), dtype=torch.float64)
    best, best_cost = factors.clone(), now.clone()
    for _ in range(_ROUNDS):
        gap = (now.clamp(min=1e-9) / wanted).log()
        better = gap.abs() < (best_cost.clamp(min=1e-9) / wanted).log().abs()
        best, best_cost = torch.where(better, factors, best), torch.where(better, now, best_cost)
        if bool(((best_cost / wanted - 1).abs() <= _CLOSE).all()):
            break
        # KL goes with the square of a small strength
        factors = factors * (-gap / 2).exp().clamp(1 / _STEP, _STEP)
        factors = factors.clamp(1 / _MOST, _MOST)
        now = _costs(model, [scaled(d, float(f)) for d, f in zip(draws, factors, strict=True)], ids)
    return [
        (scaled(draw, float(f)), float(kl), wanted, float(f))
        for draw, f, kl in zip(draws, best, best_cost, strict=True)
    ]


def _costs(model: Model, recipes: Sequence[Recipe], ids: Sequence[Sequence[int]]) -> Tensor:
    sums, counts = kl_by_text(model, recipes, ids, PLACES)
    return sums.sum(1) / counts.sum(1).clamp(min=1)


def _has_strength(recipe: Recipe) -> bool:
    try:
        scaled(recipe, 2.0)
    except InputError:
        return False
    return True


@torch.no_grad()
def cost_of_words(model: Model, words: str) -> float:
    """Mean KL(asked || not asked) in nats per token that `words` before the neutral texts cause in them."""
    total, tokens = 0.0, 0
    before = model.encode_prompt(words, TOKENS)
    for ids in neutral_ids(model):
        start = int(bool(ids) and ids[0] == model.bos_id)
        places = torch.linspace(start, len(ids) - 1, PLACES).round().long()
        said = [
            _log_probabilities(model, row, places + shift)
            for row, shift in ((ids, 0), (before + ids[start:], len(before) - start))
        ]
        total += float((said[1].exp() * (said[1] - said[0])).sum())
        tokens += len(places)
    return total / tokens


def _log_probabilities(model: Model, ids: Sequence[int], places: Tensor) -> Tensor:
    row = torch.tensor([list(ids)], device=model.device)
    logits = model.hf(input_ids=row, attention_mask=torch.ones_like(row), use_cache=False, logits_to_keep=places).logits
    return torch.as_tensor(logits[0].double().log_softmax(-1))
