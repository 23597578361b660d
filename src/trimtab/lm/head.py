"""From the last hidden state to `Logits`, in pieces of the vocabulary that stay in the processor's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import linear

from trimtab.errors import UnsupportedError
from trimtab.lm.sampling import BLOCK, Logits, blocks
from trimtab.lm.sites import text_config

if TYPE_CHECKING:
    from trimtab.lm.load import Model

_PIECE_BYTES = 1 << 20


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
        self.cap: float | None = getattr(text_config(model.hf), "final_logit_softcapping", None)
        self.words = self.weight.shape[0]
        n = -(-self.words // BLOCK)
        empty = {"dtype": torch.float32, "device": self.weight.device}
        self.values = torch.full((rows, n * BLOCK), -torch.inf, **empty)
        self.peaks, self.mass = torch.empty(2, rows, n, **empty)

    def __call__(self, hidden: Tensor, temperature: Tensor | None) -> Logits:
        """Logits of `hidden` [rows, d], divided by `temperature` [rows, 1] if given."""
        rows = len(hidden)
        size = self.values.shape[1]
        piece = size if hidden.is_cuda else max(1024, _PIECE_BYTES // (4 * rows) // BLOCK * BLOCK)
        values, peaks, mass = self.values[:rows], self.peaks[:rows], self.mass[:rows]
        hidden = hidden.to(self.weight.dtype)
        for start in range(0, size, piece):
            stop = min(start + piece, size)
            span = slice(start, min(stop, self.words))
            new = linear(hidden, self.weight[span], None if self.bias is None else self.bias[span]).float()
            if self.cap is not None:
                new = torch.tanh(new / self.cap) * self.cap
            if temperature is not None:
                new = new / temperature
            values[:, span] = new
            part = slice(start // BLOCK, stop // BLOCK)
            blocks(values[:, start:stop], peaks[:, part], mass[:, part])
        return Logits(values, peaks, mass)
