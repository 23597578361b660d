"""The arithmetic of steering: pure functions from the residual and the latents to a change of the residual.

Every latent operation is one law, `g(f) = min(max(gain * f + offset, low), high)`, applied to a feature's activation;
the residual then changes by `(g(f) - f) * decoder row` (`Latents.move`). Only the difference is added, so what the SAE
fails to reconstruct (its error term) stays in the residual, whatever the SAE is worth. Writing all operations as one
law lets each row of a batch have its own.

| operation | g(f) | after |
|---|---|---|
| `clamp` to c | c | Templeton et al., Scaling Monosemanticity, 2024 (feature steering by clamping) |
| `ablate` | 0 | the same with c = 0 |
| `scale` by s | s f | a multiple of what the feature does by itself; 0 is `ablate`, 1 changes nothing |
| `min` c | max(f, c): *raise* to at least c, leave higher values alone | minimum-clamp of AxBench, Wu et al., 2025 |
| `max` c | min(f, c): *lower* to at most c, leave lower values alone | its mirror image |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trimtab.spec import Op

GAIN, OFFSET, LOW, HIGH = range(4)
KEEP = (1.0, 0.0, -math.inf, math.inf)
"""The law that changes nothing; pads rows that have fewer latents than their neighbours."""


def law(op: Op, values: Tensor) -> Tensor:
    """The law [4, n] of one latent operation for values [n] (targets in activation units, or factors for `scale`).

    Projection (`project`) sets a coordinate of the residual and obeys the law of `clamp`.
    """
    result = torch.tensor(KEEP, dtype=torch.float32, device=values.device)[:, None].repeat(1, values.numel())
    if op in ("clamp", "project", "ablate"):
        result[GAIN], result[OFFSET] = 0.0, (0.0 if op == "ablate" else values)
    elif op == "scale":
        result[GAIN] = values
    elif op == "min":
        result[LOW] = values
    elif op == "max":
        result[HIGH] = values
    else:
        raise ValueError(f"{op!r} is not an operation on latents")
    return result


def obey(activations: Tensor, laws: Tensor) -> Tensor:
    """g(f): activations [rows, seq, n] under laws [4, n], or [4, rows, n] for a law per row; same shape out."""
    gain, offset, low, high = laws if laws.dim() == 2 else laws[:, :, None, :]
    return torch.minimum(torch.maximum(gain * activations + offset, low), high)


def added_change(h: Tensor, raw: Tensor | None, relative: Tensor | None) -> Tensor:
    """Change of h [rows, seq, d] by vectors added at every position.

    `raw` [rows, d] is added as it is (contrastive activation addition, Rimsky et al., 2023; a decoder row times a
    strength for SAE features); `relative` [rows, d] is multiplied by the residual's norm at the same position.
    """
    change = torch.zeros_like(h) if raw is None else raw[:, None, :].expand_as(h)
    if relative is not None:
        change = change + torch.linalg.vector_norm(h, dim=-1, keepdim=True) * relative[:, None, :]
    return change


def projected_change(h: Tensor, directions: Tensor, duals: Tensor, laws: Tensor) -> Tensor:
    """Change of h [rows, seq, d] that sets its components along unit `directions` [rows, k, d] by `laws` [4, rows, k].

    `duals` [rows, k, d] are the directions to move along, see `dual`.
    """
    components = h @ directions.transpose(-1, -2)
    return (obey(components, laws) - components) @ duals


def dual(directions: Tensor) -> Tensor:
    """Directions [k, d] along which to move so that each of k components changes without touching the others.

    With one unit direction v this is v itself, and setting its component to 0 is directional ablation, h - (h.v) v
    (Arditi et al., 2024). With several that are not orthogonal, removing one after the other would leave a rest of
    the first; moving along the dual basis (the pseudo-inverse) sets all of them at once, by the smallest change.
    """
    return torch.linalg.pinv(directions.double()).transpose(-1, -2).to(directions.dtype)
