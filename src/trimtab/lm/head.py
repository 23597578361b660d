"""From the last hidden state to `Logits`, in pieces of the vocabulary that stay in the processor's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from trimtab.errors import UnsupportedError
from trimtab.lm.packed import can_pack, pack, product
from trimtab.lm.sampling import BLOCK, Logits, blocks
from trimtab.lm.sites import text_config

if TYPE_CHECKING:
    from trimtab.lm.model import Model

_PIECE = 4096


class Head:
    """The output projection of `model` for up to `rows` rows at a time; its buffers are laid out once.

    The `Logits` of one call are overwritten by the next. Raises `UnsupportedError` for a model whose output is not a
    linear layer with an optional soft cap.
    """

    def __init__(self, model: Model, rows: int) -> None:
        out = model.hf.get_output_embeddings()
        if not isinstance(out, torch.nn.Linear):
            raise UnsupportedError(
                f"{model.name} has no linear output layer, which generation needs; use model.hf.generate."
            )
        self.weight, self.bias = out.weight, out.bias
        self.piece = _PIECE if self.weight.device.type == "cpu" else -(-len(self.weight) // BLOCK) * BLOCK
        self.packed = pack(out, self.piece) if can_pack(model) else None
        self.cap: float | None = getattr(text_config(model.hf), "final_logit_softcapping", None)
        self.words = self.weight.shape[0]
        n = -(-self.words // BLOCK)
        device = self.weight.device
        self.values = torch.full((rows, n * BLOCK), -torch.inf, dtype=torch.float32, device=device)
        self.peaks, self.mass = torch.empty(2, rows, n, dtype=torch.float32, device=device)

    def __call__(self, hidden: Tensor, temperature: Tensor | None) -> Logits:
        """Logits of `hidden` [rows, d], divided by `temperature` [rows, 1] if given."""
        rows = len(hidden)
        size = self.values.shape[1]
        values, peaks, mass = self.values[:rows], self.peaks[:rows], self.mass[:rows]
        hidden = hidden.to(self.weight.dtype)
        for i, start in enumerate(range(0, size, self.piece)):
            stop = min(start + self.piece, size)
            span = slice(start, min(stop, self.words))
            bias = None if self.bias is None else self.bias[span]
            if self.packed is not None:
                new = product(hidden, self.packed[i], bias).float()
            else:
                new = linear(hidden, self.weight[span], bias).float()
            if self.cap is not None:
                new = torch.tanh(new / self.cap) * self.cap
            if temperature is not None:
                new = new / temperature
            values[:, span] = new
            part = slice(start // BLOCK, stop // BLOCK)
            # from the new logits while they are in the cache, unless the last block needs its padding
            blocks(new if stop <= self.words else values[:, start:stop], peaks[:, part], mass[:, part])
        return Logits(values, peaks, mass)
