"""The logit lens: which tokens a direction of the residual stream promotes when it reaches the output unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.errors import UnsupportedError

if TYPE_CHECKING:
    from trimtab.lm.load import Model

_FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@torch.no_grad()
def lens(model: Model, directions: Tensor) -> Tensor:
    """Logits [n, vocabulary] of directions [n, d] sent through the final norm and output head (nostalgebraist 2020).

    A norm makes the length of a direction irrelevant, up to its epsilon. Raises `UnsupportedError` when the model's
    final norm is not where it is in the known architectures.
    """
    weights = model.hf.get_output_embeddings().weight
    normed = final_norm(model)(directions.to(weights.device, weights.dtype))
    logits: Tensor = model.hf.get_output_embeddings()(normed).float()
    return logits


def final_norm(model: Model) -> Any:
    """The module between the last block and the output head."""
    base = model.hf.base_model
    for holder in (base, getattr(base, "language_model", None)):
        for name in _FINAL_NORMS:
            found = getattr(holder, name, None)
            if found is not None:
                return found
    raise UnsupportedError(
        f"{type(model.hf).__name__} has no final norm under a known name ({', '.join(_FINAL_NORMS)}), so its "
        "logit lens cannot be read."
    )


def promoted(model: Model, directions: Tensor, k: int = 20, chunk: int = 64) -> Tensor:
    """The `k` tokens that each direction [n, d] promotes most, best first: ids [n, k]."""
    parts = [lens(model, part).topk(k, dim=-1).indices for part in directions.split(chunk)]
    return torch.cat(parts) if parts else torch.empty(0, k, dtype=torch.long)


def words(model: Model, ids: Tensor | Sequence[int]) -> tuple[str, ...]:
    """Each token id as text, spaces kept."""
    return tuple(model.tokenizer.decode([int(i)]) for i in ids)
