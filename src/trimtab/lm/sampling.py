"""Exact sampling from a large vocabulary in one pass, with one random number per row and step.

The usual way (softmax over the vocabulary, then a multinomial draw) reads and writes every row several times. Here
the logits come with two numbers for every block of 64 words, its largest logit and its log-sum-exp, made while the
logits are still in the processor's cache. A token is drawn by inverting the cumulative distribution in two steps,
first over blocks and then inside one block, which is the same distribution exactly. The filters (top-k, top-p, min-p)
look only at the blocks with the largest logits: the k best words lie in the k blocks with the largest maxima.

Randomness is a function of (seed, prompt, sample, step) and of nothing else: the number for a step is the SplitMix64
output (Steele, Lea and Flood, 2014) at that step of a stream whose key is a hash of the other three. So a row's text
does not depend on its neighbours, on the batch size or on the order of rows, and a steered and an unsteered row with
the same seed are drawn with the same numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.spec import Sampling

BLOCK = 64
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True, eq=False)
class Logits:
    """Logits, divided by the temperature, of the next token.

    `values` [rows, words], float32, padded with -inf to a whole number of blocks; `peaks` and `mass` [rows, blocks]:
    each block's maximum and log-sum-exp.
    """

    values: Tensor
    peaks: Tensor
    mass: Tensor


def blocks(values: Tensor, peaks: Tensor, mass: Tensor) -> None:
    """Fill `peaks` and `mass` [rows, n] from `values` [rows, n * 64]."""
    parts = values.view(len(values), -1, BLOCK)
    torch.amax(parts, -1, out=peaks)
    # a block of nothing but -inf must have the mass -inf, not NaN
    parts = parts - peaks[..., None].clamp(min=torch.finfo(torch.float32).min)
    # torch's exp2 takes a quarter of the time of its exp on a CPU, and is as exact
    torch.sum(parts.mul_(_LOG2_E).exp2_(), -1, out=mass)
    mass.log_().add_(peaks)


def logits_of(values: Tensor) -> Logits:
    """Plain float32 scores [rows, words] as `Logits`."""
    extra = -values.shape[1] % BLOCK
    padded = torch.nn.functional.pad(values.float(), (0, extra), value=-torch.inf).contiguous()
    peaks, mass = padded.new_empty(2, len(padded), padded.shape[1] // BLOCK)
    blocks(padded, peaks, mass)
    return Logits(padded, peaks, mass)


def stream_key(seed: int, prompt: str, sample: int) -> int:
    """The 64-bit key of a row's random stream."""
    text = f"{seed}\0{sample}\0{prompt}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(keys: Sequence[int], steps: Sequence[int]) -> Tensor:
    """One number in (0, 1) per row, float64 [rows]: number `steps[i]` of the stream with key `keys[i]`."""
    with np.errstate(over="ignore"):
        z = np.array(keys, np.uint64) + (np.array(steps, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return torch.from_numpy(((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52)


def draw(logits: Logits, noise: Tensor, sampling: Sequence[Sampling]) -> Tensor:
    """The next token of every row, int64 [rows]; `noise` [rows] float64 in (0, 1), one `Sampling` per row.

    Row i of `logits` must already be divided by its temperature (greedy rows: left as they are).
    Raises `InputError` when a row's logits are not finite.
    """
    _refuse_broken(logits)
    noise = noise.to(logits.values.device)
    greedy, plain, filtered = [], [], []
    for row, s in enumerate(sampling):
        if s.temperature == 0:
            greedy.append(row)
        elif s.top_k is None and (s.top_p is None or s.top_p == 1) and not s.min_p:
            plain.append(row)
        else:
            filtered.append(row)
    tokens = torch.empty(len(sampling), dtype=torch.long, device=logits.values.device)
    for rows, one in ((greedy, _greedy), (plain, _plain)):
        if len(rows) == len(sampling):
            return one(logits, noise)
        if rows:
            tokens[rows] = one(_take(logits, rows), noise[rows])
    if filtered:
        tokens[filtered] = _filtered(_take(logits, filtered), noise[filtered], [sampling[row] for row in filtered])
    return tokens


def _take(logits: Logits, rows: list[int]) -> Logits:
    if len(rows) == len(logits.values):
        return logits
    return Logits(logits.values[rows], logits.peaks[rows], logits.mass[rows])


def _refuse_broken(logits: Logits) -> None:
    best = logits.peaks.amax(-1)
    if not bool(torch.isfinite(best).all()):
        row = int((~torch.isfinite(best)).nonzero()[0])
        raise InputError(
            f"The model's logits are not finite in row {row} (NaN or infinity): a strength is too large for its dtype."
        )


def _within(logits: Logits, block: Tensor) -> Tensor:
    """The logits [rows, 64] of one block of each row."""
    parts = logits.values.view(len(block), -1, BLOCK)
    return parts[torch.arange(len(block), device=block.device), block]


def _greedy(logits: Logits, noise: Tensor) -> Tensor:
    block = logits.peaks.argmax(-1)
    return block * BLOCK + _within(logits, block).argmax(-1)


def _plain(logits: Logits, noise: Tensor) -> Tensor:
    weights = (logits.mass - logits.mass.amax(-1, keepdim=True)).double().exp()
    block, rest = _invert(weights, noise)
    inside = _within(logits, block)
    place, _ = _invert((inside - inside.amax(-1, keepdim=True)).double().exp(), rest)
    return block * BLOCK + place


def _invert(weights: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Index [rows] drawn in proportion to `weights` [rows, n], and what is left of `noise`, again uniform in [0, 1]."""
    total = weights.cumsum(-1)
    # strictly below the total, so that the first sum above it belongs to a word with a weight
    target = torch.minimum(noise[:, None] * total[:, -1:], total[:, -1:] * (1 - 2**-52))
    index = torch.searchsorted(total, target, right=True)
    weight = weights.gather(1, index)
    rest = (target - (total.gather(1, index) - weight)) / weight
    return index[:, 0], rest[:, 0].clamp(0, 1)


def _filtered(logits: Logits, noise: Tensor, sampling: list[Sampling]) -> Tensor:
    """Draw from the best words only: takes more and more of them, best first, until the filters' edge is among them."""
    size, device = logits.values.shape[1], noise.device
    k = torch.tensor([min(s.top_k or size, size) for s in sampling], device=device)[:, None]
    p = torch.tensor([_share(s.top_p) for s in sampling], dtype=torch.float64, device=device)[:, None]
    low = torch.tensor([math.log(s.min_p) if s.min_p else -math.inf for s in sampling], device=device)[:, None]
    whole = torch.logsumexp(logits.mass.double(), -1, keepdim=True)
    count = min(size, max([BLOCK, *(s.top_k for s in sampling if s.top_k)]))
    while True:
        values, words = _best(logits, count)
        rank = torch.arange(count, device=device)
        best = torch.where(rank < k, values.double(), -torch.inf)
        # top-p is a share of what top-k has left: of the whole vocabulary when there is no top-k
        total = torch.where(k < size, torch.logsumexp(best, -1, keepdim=True), whole)
        share = (best - total).exp()
        keep = (rank < k) & (share.cumsum(-1) - share < p) & (values >= values[:, :1] + low)
        keep[:, 0] = True
        if count == size or not bool((keep[:, -1:] & (k > count)).any()):
            break
        count = min(count * 8, size)
    weights = torch.where(keep, (values - values[:, :1]).double().exp(), 0.0)
    place, _ = _invert(weights, noise)
    return words.gather(1, place[:, None])[:, 0]


def _share(top_p: float | None) -> float:
    return math.inf if top_p is None or top_p == 1 else top_p


def _best(logits: Logits, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest logits of each row, best first, and their words; both [rows, count]."""
    n = logits.peaks.shape[1]
    if count * 4 >= n:
        values, words = logits.values.topk(count, -1)
        return values, words
    block = logits.peaks.topk(count, -1).indices
    parts = logits.values.view(len(block), n, BLOCK).gather(1, block[..., None].expand(-1, -1, BLOCK))
    values, place = parts.flatten(1).topk(count, -1)
    return values, block.gather(1, place // BLOCK) * BLOCK + place % BLOCK
