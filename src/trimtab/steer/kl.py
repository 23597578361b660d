"""The cost of a recipe: how far it moves the model's predictions, in nats per token.

The cost is the mean, over the tokens that the recipe acts on, of KL(steered || unsteered) of the next-token
distribution, both read on the same given text. It is what the unsteered model finds a steered token less likely by than
the steered model does, on average, before the text itself has drifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.lm.clock import selected
from trimtab.lm.head import Head
from trimtab.lm.packed import packed_layers
from trimtab.lm.residual import Positions, edit

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe

PROMPT_TOKENS = 8
"""The first tokens of a text stand for a prompt (BOS among them), the others for what is generated."""

_FORWARD_TOKENS = 1024
_LOGIT_ROWS = 64  # a row of logits of a vocabulary of 262,144 is 1 MB


@torch.no_grad()
def kl_by_text(
    model: Model, recipes: Sequence[Recipe], token_ids: Sequence[Sequence[int]], places: int
) -> tuple[Tensor, Tensor]:
    """Sums of KL(steered || unsteered) in nats, float64 [recipes, texts], and the tokens summed over, the same shape.

    At most `places` tokens of each text are looked at, spread evenly over those that some recipe acts on; a recipe
    counts those that it acts on itself. All recipes read a text in one batch, one row each, beside an unsteered row.
    """
    sums = torch.zeros(len(recipes), len(token_ids), dtype=torch.float64)
    counts = torch.zeros_like(sums)
    rows = 1 + max(1, _FORWARD_TOKENS // max(map(len, token_ids)) - 1)
    head = Head(model, max(rows, _LOGIT_ROWS))
    with packed_layers(model):
        for number, row in enumerate(token_ids):
            now = _positions(model, row)
            acted = torch.stack([_acted(recipe, now) for recipe in recipes])  # [recipes, tokens]
            looked = _spread(acted.any(0).nonzero()[:, 0], places)
            if not len(looked):
                continue
            mine = acted[:, looked]
            for start in range(0, len(recipes), rows - 1):
                part = slice(start, start + rows - 1)
                found = _divergences(model, recipes[part], row, now, looked, head)
                sums[part, number] = (found * mine[part]).sum(1)
            counts[:, number] = mine.sum(1)
    return sums, counts


def beginning(model: Model, text: str, tokens: int) -> tuple[int, ...]:
    """The first `tokens` token ids of a text, fewer where the model's context is shorter, BOS first if any."""
    if not isinstance(text, str) or not text:
        raise InputError(f"A text must be text and not empty, not {text!r}.")
    return tuple(model.encode(text)[: min(tokens, model.context or tokens)])


def _divergences(
    model: Model, recipes: Sequence[Recipe], row: Sequence[int], now: Positions, looked: Tensor, head: Head
) -> Tensor:
    """KL [recipes, places] at the tokens `looked` [places] of one text."""
    n = len(recipes) + 1
    ids = torch.tensor([list(row)], device=model.device)
    batch = Positions(*(part.expand(n, -1) for part in (now.absolute, now.generated, now.real, now.bos)))
    edits = type(recipes[0]).compile_rows([None, *recipes], model)
    with edit(model, edits, positions=lambda: batch, record=False, must_act=False, fan_out=n):
        out = model.hf.base_model(input_ids=ids, use_cache=False)
    last = out.last_hidden_state.expand(n, -1, -1)  # still one row where no recipe of these changes anything
    hidden = last[:, looked.to(last.device)]  # [n, places, d]
    found = torch.zeros(len(recipes), len(looked), dtype=torch.float64)
    step = max(1, len(head.values) // n)
    for start in range(0, len(looked), step):
        part = hidden[:, start : start + step].transpose(0, 1)  # [places, n, d]
        logits = head(part.reshape(-1, part.shape[-1]), None)
        norms = logits.mass.logsumexp(-1).view(-1, n)
        for i, said in enumerate(logits.values[:, : head.words].view(-1, n, head.words)):
            found[:, start + i] = _kl(said[1:], norms[i, 1:], said[0], norms[i, 0]).double().cpu()
    return found


def _kl(steered: Tensor, steered_norm: Tensor, plain: Tensor, plain_norm: Tensor) -> Tensor:
    """KL [rows] of logits [rows, words] against logits [words], with the log-sum-exp of each."""
    gap = steered - plain
    return (gap * (steered - steered_norm[:, None]).exp_()).sum(-1) - steered_norm + plain_norm


def _positions(model: Model, row: Sequence[int]) -> Positions:
    ids = torch.tensor([list(row)])
    at = torch.arange(ids.shape[1])[None]
    bos = ids == model.bos_id if model.bos_id is not None else torch.zeros_like(ids).bool()
    return Positions(at, at >= PROMPT_TOKENS, torch.ones_like(bos), bos)


def _acted(recipe: Recipe, now: Positions) -> Tensor:
    """Which tokens [tokens] of a text any of the recipe's edits acts on."""
    if not recipe.edits:
        raise InputError("This recipe has no edit, so there is nothing to measure.")
    return torch.stack([selected(edit.spec.scope, now)[0] for edit in recipe.edits]).any(0)


def _spread(indices: Tensor, most: int) -> Tensor:
    """At most `most` of the indices, evenly spread."""
    if len(indices) <= most:
        return indices
    return indices[torch.linspace(0, len(indices) - 1, most).round().long()]
