"""Reading texts with the unsteered model: its residual stream, and how likely it finds them.

Nothing here can measure the steered model: a model with an edit in place is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm import residual
from trimtab.lm.head import Head
from trimtab.lm.packed import packed_layers

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.spec import Site

BATCH_TOKENS = 1024
"""Tokens, padding included, that are read at a time for activations."""

LOGIT_ROWS = 64
"""Tokens at a time for log-likelihoods: one row of logits of a 262,144-word vocabulary is 1 MB in float32."""


def refuse_edited(model: Model) -> None:
    """Raise `UnsupportedError` while anything but transformers itself has a hook in `model`, such as an active edit."""
    for name, module in model.hf.named_modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if not str(getattr(hook, "__module__", "")).startswith("transformers."):
                raise UnsupportedError(
                    f"{model.name} is being edited (there is a hook at {name or 'its root'}). Evidence is measured on "
                    "the unsteered model: leave the `with model.edited(...)` block first."
                )


def residuals(
    model: Model, site: Site, token_ids: Sequence[Sequence[int]], *, batch_tokens: int = BATCH_TOKENS
) -> Iterator[tuple[int, Tensor]]:
    """Yield (index, residual [tokens, d_model]) for each list of ids, BOS left out, shortest texts first."""
    refuse_edited(model)
    for rows in _batches(token_ids, batch_tokens):
        ids, mask = model.pad([token_ids[i] for i in rows], "right")
        h = residual.read(model, ids, [site], attention_mask=mask)[site]
        for row, index in enumerate(rows):
            skip = bos_length(model, token_ids[index])
            yield index, h[row, skip : len(token_ids[index])]


@torch.no_grad()
def log_likelihoods(model: Model, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Tensor]:
    """Log-probability in nats, under the unsteered model, of each token from `starts[i]` on: float32 [tokens] each.

    A start of 0 means the first token that has something before it, so 1. Only the tokens that are asked for go through
    the output layer.
    """
    refuse_edited(model)
    out: list[Tensor] = [torch.empty(0)] * len(token_ids)
    head = Head(model, LOGIT_ROWS)
    for rows in _batches(token_ids, BATCH_TOKENS):
        ids, mask = model.pad([token_ids[i] for i in rows], "right")
        with packed_layers(model):
            hidden = model.hf.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        spans = [(max(1, starts[index]), max(1, starts[index], len(token_ids[index]))) for index in rows]
        last = torch.cat([hidden[row, start - 1 : stop - 1] for row, (start, stop) in enumerate(spans)])
        target = torch.cat([ids[row, start:stop] for row, (start, stop) in enumerate(spans)])
        parts = said(head, last, target).cpu().split([stop - start for start, stop in spans])
        for index, part in zip(rows, parts, strict=True):
            out[index] = part.clone()
    return out


def said(head: Head, hidden: Tensor, target: Tensor) -> Tensor:
    """Log-probability, float32 [n], of each target id [n] after its last hidden state [n, d]."""
    found = [torch.zeros(0, device=hidden.device)]
    for h, ids in zip(hidden.split(LOGIT_ROWS), target.split(LOGIT_ROWS), strict=True) if len(hidden) else ():
        logits = head(h, None)
        own = logits.values.gather(1, ids.to(logits.values.device)[:, None])[:, 0]
        found.append(own - logits.mass.logsumexp(-1))
    return torch.cat(found)


def bos_length(model: Model, ids: Sequence[int]) -> int:
    """1 where `ids` starts with the model's BOS token, else 0."""
    return int(bool(len(ids)) and model.bos_id is not None and ids[0] == model.bos_id)


def _batches(token_ids: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of like length, whose padded size stays within `batch_tokens` (or one row)."""
    for number, ids in enumerate(token_ids):
        if not len(ids):
            raise InputError(f"Text {number} has no tokens.")
    batch: list[int] = []
    for index in sorted(range(len(token_ids)), key=lambda i: len(token_ids[i])):
        if batch and len(token_ids[index]) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
