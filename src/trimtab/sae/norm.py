"""How an SAE prepares its input, and what is needed to undo that: pure functions, no state."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Normalisation = Literal["none", "layer_norm", "constant_norm_rescale", "sequence"]

_EPSILON = 1e-5  # as SAELens: added to the deviation going in, not coming out


class Scale(NamedTuple):
    """Undoes a normalisation: residual = factor * decoded + shift. Both broadcast over [..., d_in]."""

    factor: Tensor
    shift: Tensor


def normalise(x: Tensor, kind: Normalisation) -> tuple[Tensor, Scale]:
    """Normalise x [..., d] float32 -> (normalised x, the `Scale` that undoes it).

    "layer_norm" and "constant_norm_rescale" (to length sqrt(d)) are SAELens' and look at one position at a time.
    "sequence" is (x - mean) / std * sqrt(d) with one mean and one standard deviation over all positions and
    coordinates of a sequence, x [..., positions, d], as the SAEs of two linear layers were trained: there an
    activation depends on the other tokens of its text, so a text must come whole and without padding.
    """
    if kind == "none":
        return x, Scale(x.new_ones(()), x.new_zeros(()))
    root = float(x.shape[-1]) ** 0.5
    if kind == "constant_norm_rescale":
        length = x.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
        return x * (root / length), Scale(length / root, torch.zeros_like(length))
    dims = (-1,) if kind == "layer_norm" or x.ndim == 1 else (-2, -1)
    mean = x.mean(dim=dims, keepdim=True)
    centred = x - mean
    deviation = centred.std(dim=dims, keepdim=True)
    if kind == "layer_norm":
        return centred / (deviation + _EPSILON), Scale(deviation, mean)
    deviation = deviation.clamp_min(_EPSILON)
    return centred / deviation * root, Scale(deviation / root, mean)
