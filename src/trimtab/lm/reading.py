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
from trimtab.lm.packed import packed_layers

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.spec import Site

BATCH_TOKENS = 1024
"""Tokens, padding included, that are read at a time for activations."""

LOGIT_TOKENS = 192
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
def log_likelihoods(
    model: Model, token_ids: Sequence[Sequence[int]], starts: Sequence[int], *, batch_tokens: int = LOGIT_TOKENS
) -> list[Tensor]:
    """Log-probability in nats, under the unsteered model, of each token from `starts[i]` on: float32 [tokens] each.

    A start of 0 means the first token that has something before it, so 1.
    """
    refuse_edited(model)
    out: list[Tensor] = [torch.empty(0)] * len(token_ids)
    for rows in _batches(token_ids, batch_tokens):
        ids, mask = model.pad([token_ids[i] for i in rows], "right")
        with packed_layers(model):
            logits = model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
        for row, index in enumerate(rows):
            start, stop = max(1, starts[index]), len(token_ids[index])
            said = logits[row, start - 1 : stop - 1].float()
            target = ids[row, start:stop].to(said.device)
            out[index] = (said.gather(1, target[:, None])[:, 0] - said.logsumexp(-1)).cpu()
    return out


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
