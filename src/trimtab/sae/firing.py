"""Which features fire, and how strongly, without a float32 product for those that do not.

One bfloat16 product screens: beside the weights it has columns that add an upper bound of its own rounding error, so
that no feature that fires can be missed. What passes (a few more than fire) is computed in float32. The bound: with
x' and w' what bfloat16 makes of x and w,

    |x w - x' w'| <= |x - x'| |w| + |x'| |w - w'|        (Cauchy and Schwarz)

whose four norms are known, plus (d + 8) 2^-23 |x| |w| for the float32 sums on both sides.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from trimtab.sae.activations import has_bfloat16

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

Fired = tuple[Tensor, Tensor, Tensor]
"""(row, feature, value) of every positive activation, by row and then by feature; values are float32."""

_ROWS = 512  # at a time: more take longer to look through, fewer to multiply
_DENSE_NUMBERS = 1 << 24  # activations that are dense in memory at once
_UP = 1 + 2**-7  # times this, bfloat16 does not round a positive number below itself
_NEVER = -1e30  # instead of minus infinity: the bias of a feature whose threshold is infinite


def finder(sae: SAE, *, screen: bool | None = None) -> Callable[[Tensor], Fired]:
    """A function from residuals [n, d_in], one row a position, to what fires in them: the same as `sae.encode`, up to
    the rounding of float32 sums.

    `screen` chooses the way; None: screening where the processor has bfloat16 products, and the SAE is no topk (whose
    activations depend on each other). The SAE must be positionwise.
    """
    if screen is None:
        screen = sae.device.type == "cpu" and has_bfloat16(sae.device) and sae.architecture != "topk"
    return _screened(sae) if screen else _dense(sae)


def _dense(sae: SAE) -> Callable[[Tensor], Fired]:
    size = max(1, _DENSE_NUMBERS // sae.d_sae)

    def find(h: Tensor) -> Fired:
        parts = []
        for start in range(0, len(h), size):
            f = sae.encode(h[start : start + size])
            row, feature = (f > 0).nonzero().unbind(1)
            parts.append((row + start, feature, f[row, feature]))
        return _joined(parts, h)

    return find


def _screened(sae: SAE) -> Callable[[Tensor], Fired]:
    weights = sae.W_enc.T.contiguous()  # [features, d]
    product = _product(_with_bounds(sae, weights))
    slack = (sae.d_in + 8) * 2.0**-23
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says once that sparse tensors are new
        torch.eye(1).to_sparse_csr()

    flags = np.empty((_ROWS, sae.d_sae), dtype=bool)  # used again, since new pages of memory cost more than the work

    def find(h: Tensor) -> Fired:
        parts = []
        for start in range(0, len(h), _ROWS):
            x, _ = sae.normalise(h[start : start + _ROWS])
            known = product(_with_errors(x, slack))
            row, feature = _positive(known, flags[: len(x)])
            value = _activations(sae, _at(x, weights, row, feature), feature)
            fires = value > 0
            parts.append((row[fires] + start, feature[fires], value[fires]))
        return _joined(parts, h)

    return find


def _with_bounds(sae: SAE, weights: Tensor) -> Tensor:
    """[features, d + 3] bfloat16: the weights, the bias less the threshold, and both norms that the bound needs."""
    rounded = weights.bfloat16()
    bias = sae.b_enc if sae.threshold is None else (sae.b_enc - sae.threshold).clamp_min(_NEVER)
    more = [bias + bias.abs() * (_UP - 1), weights.norm(dim=1) * _UP, (weights - rounded.float()).norm(dim=1) * _UP]
    return torch.cat([rounded, torch.stack(more, 1).bfloat16()], 1)


def _with_errors(x: Tensor, slack: float) -> Tensor:
    """[n, d + 3] bfloat16: x, one, and what the norms of the weights are multiplied with."""
    rounded = x.bfloat16()
    size = x.norm(dim=1)
    error = (x - rounded.float()).norm(dim=1) + slack * size
    more = torch.stack([torch.ones_like(size), error * _UP, (size + error) * _UP], 1)
    return torch.cat([rounded, more.bfloat16()], 1)


def _product(weights: Tensor) -> Callable[[Tensor], Tensor]:
    """X [n, d] -> x @ weights.T, with the weights laid out once where oneDNN can do that."""
    ops = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and ops._is_mkldnn_bf16_supported()):
        return lambda x: linear(x, weights)
    packed = ops._reorder_linear_weight(weights, _ROWS)
    return lambda x: ops._linear_pointwise(x, packed, None, "none", [], "")


def _positive(known: Tensor, flags: np.ndarray) -> tuple[Tensor, Tensor]:
    """(row, feature) of the positive entries of a contiguous bfloat16 matrix; its bits sort as whole numbers do.

    `flags`: a boolean array of the same shape, which is written over.
    """
    np.greater(known.view(torch.int16).numpy(), 0, out=flags)  # several times faster than torch's
    flags = flags.reshape(-1)
    words = len(flags) // 8 * 8  # eight flags at a time, since few are set
    some = torch.from_numpy(flags[:words].view(np.int64)).nonzero().numpy()[:, 0]
    place, bit = np.nonzero(flags[:words].reshape(-1, 8)[some])
    found = torch.from_numpy(np.concatenate([some[place] * 8 + bit, words + np.flatnonzero(flags[words:])]))
    return found // known.shape[1], found % known.shape[1]


def _at(x: Tensor, weights: Tensor, row: Tensor, feature: Tensor) -> Tensor:
    """x[row] @ weights[feature], one number for each pair.

    Feature by feature, since the rows of x stay in the processor's cache and the weights do not.
    """
    order = torch.from_numpy(stable_order(feature.numpy()))
    size = torch.bincount(feature, minlength=len(weights))
    begins = torch.cat([size.new_zeros(1), size.cumsum(0)])
    wanted = torch.sparse_csr_tensor(
        begins, row[order], x.new_zeros(len(row)), (len(weights), len(x)), check_invariants=False
    )
    found = torch.empty(len(row))
    found[order] = torch.sparse.sampled_addmm(wanted, weights, x.T, beta=0.0).values()
    return found


def stable_order(numbers: np.ndarray) -> np.ndarray:
    """A stable argsort of whole numbers from 0; of small ones numpy sorts the bits, which is several times as fast."""
    small = len(numbers) > 0 and int(numbers.max()) < 1 << 16
    return np.argsort(numbers.astype(np.uint16) if small else numbers, kind="stable")


def _activations(sae: SAE, product: Tensor, feature: Tensor) -> Tensor:
    """What `SAE.encode` makes of x @ W_enc, for single entries."""
    pre = product + sae.b_enc[feature]
    if sae.architecture == "gated":
        assert sae.gain is not None
        assert sae.b_mag is not None
        return (product * sae.gain[feature] + sae.b_mag[feature]).relu() * (pre > 0)
    return pre.relu() if sae.threshold is None else pre.relu() * (pre > sae.threshold[feature])


def _joined(parts: list[Fired], h: Tensor) -> Fired:
    if not parts:
        none = torch.zeros(0, dtype=torch.int64, device=h.device)
        return none, none, none.float()
    row, feature, value = (torch.cat(column) for column in zip(*parts, strict=True))
    return row, feature, value
