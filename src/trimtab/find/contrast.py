"""What a model and its SAEs do on the two sides of a contrast: one forward pass a text, statistics only kept.

Activations at single tokens are pooled at once and thrown away; a text leaves one residual vector and one sparse row of
feature activations behind, so memory does not grow with the length of texts nor with the width of the SAE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.pairs import ContrastSet
from trimtab.lm.residual import read
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Pool = Literal["mean", "max", "last", "answer"]

TOKENS_PER_BATCH = 1024
# A token whose residual is this many times longer than the median token's is an attention sink, not a carrier of text.
SINK_FACTOR = 4.0


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a contrast. `residual` [n, d] float32; `latents` [n, d_sae] a SciPy CSR matrix, float32."""

    residual: Tensor
    latents: Any

    def dense(self, features: Sequence[int]) -> Tensor:
        """Pooled activations [n, len(features)] of some features."""
        return torch.from_numpy(self.latents[:, list(features)].toarray())


@dataclass(frozen=True, eq=False)
class Activations:
    """Both sides of a contrast at one site, pooled per text, and what all tokens together say of each feature.

    density [d_sae]: share of ordinary tokens with the feature on. peak [d_sae]: largest activation at an ordinary
    token. odd_peak [d_sae]: largest at BOS and sink tokens, which are never pooled.
    """

    site: Site
    pool: Pool
    positive: Side
    negative: Side
    density: Tensor
    peak: Tensor
    odd_peak: Tensor
    tokens: int
    sinks: int

    @property
    def delta(self) -> Tensor:
        """Mean difference of the pooled residuals, [d]."""
        return self.positive.residual.mean(0) - self.negative.residual.mean(0)


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts of a contrast, right-padded. `rows` are text numbers (positives first); `keep`, `odd`: bool [rows, seq]."""

    rows: list[int]
    ids: Tensor
    mask: Tensor


def tokenise(model: Model, contrast: ContrastSet) -> list[list[int]]:
    """Token ids of all texts, positives first. Raises `InputError` for a text longer than the model's context."""
    ids = [model.encode(text) for text in (*contrast.positive, *contrast.negative)]
    limit = model.context
    for text, row in zip((*contrast.positive, *contrast.negative), ids, strict=True):
        if limit is not None and len(row) > limit:
            raise InputError(
                f"A text of {contrast.name} has {len(row)} tokens, more than the {limit} of {model.name}: {text[:60]!r}"
            )
        if not [token for token in row if token != model.bos_id]:
            raise InputError(f"A text of {contrast.name} has no tokens: {text!r}")
    return ids


def batches(ids: Sequence[Sequence[int]], tokens: int = TOKENS_PER_BATCH) -> Iterator[Batch]:
    """Right-padded batches of at most `tokens` positions, texts of like length together."""
    order = sorted(range(len(ids)), key=lambda row: (len(ids[row]), row))
    rows: list[int] = []
    for position, row in enumerate(order):
        rows.append(row)
        following = order[position + 1] if position + 1 < len(order) else None
        if following is None or len(ids[following]) * (len(rows) + 1) > tokens:
            width = len(ids[row])
            padded = torch.zeros(len(rows), width, dtype=torch.long)
            mask = torch.zeros_like(padded)
            for i, r in enumerate(rows):
                padded[i, : len(ids[r])] = torch.tensor(ids[r])
                mask[i, : len(ids[r])] = 1
            yield Batch(rows, padded, mask)
            rows = []


@torch.no_grad()
def collect(
    model: Model, saes: SAE | Sequence[SAE], contrast: ContrastSet, pool: Pool = "mean", template: bool = True,
    chosen: Sequence[Sequence[bool]] | None = None,
) -> list[Activations]:  # fmt: skip
    """Pooled activations at the site of each SAE, all in one forward pass per text.

    pool: `mean` or `max` over a text's ordinary tokens (residuals are averaged in both cases), the `last` token, or
    the `answer`: the tokens after what a pair has in common at its start. `template` leaves out tokens that all texts
    share at their start or end. `chosen` narrows the pooled tokens further: a bool for every token of every text.
    """
    several = [saes] if not isinstance(saes, Sequence) else list(saes)
    ids = tokenise(model, contrast)
    allowed = pooled_tokens(ids, contrast, pool, model.bos_id, template)
    if chosen is not None:
        allowed = [
            [a and c for a, c in zip(mine, extra, strict=True)]
            if any(a and c for a, c in zip(mine, extra, strict=True))
            else mine
            for mine, extra in zip(allowed, chosen, strict=True)
        ]
    sums = [_Sums(sae, len(ids), pool) for sae in several]
    for batch in batches(ids):
        stream = read(model, batch.ids, [one.sae.site for one in sums], batch.mask)
        real = batch.mask.bool()
        use = torch.zeros_like(real)
        for i, row in enumerate(batch.rows):
            use[i, : len(ids[row])] = torch.tensor(allowed[row])
        bos = (batch.ids == model.bos_id) & real if model.bos_id is not None else torch.zeros_like(real)
        for one in sums:
            one.add(batch.rows, stream[one.sae.site].float().cpu(), real, bos, use)
    return [one.finish(len(contrast.positive)) for one in sums]


def pooled_tokens(
    ids: Sequence[Sequence[int]], contrast: ContrastSet, pool: Pool, bos: int | None, template: bool = True
) -> list[list[bool]]:
    """Which tokens of each text are pooled (before sinks, which only the residual shows, are left out)."""
    if pool not in get_args(Pool):
        raise InputError(f"Unknown pooling {pool!r}. Valid: {', '.join(get_args(Pool))}.")
    if pool == "last":
        return [[i == len(row) - 1 for i in range(len(row))] for row in ids]
    if pool == "answer":
        if not contrast.paired:
            raise InputError("Pooling at the answer needs pairs that share their start; this set is not paired.")
        n = len(contrast.positive)
        starts = [_common([ids[i], ids[n + i]]) for i in range(n)] * 2
        return [[i >= min(s, len(row) - 1) for i in range(len(row))] for row, s in zip(ids, starts, strict=True)]
    head = _common(ids) if template else 0
    tail = _common([row[::-1] for row in ids]) if template else 0
    result = []
    for row in ids:
        inner = [head <= i < len(row) - tail and row[i] != bos for i in range(len(row))]
        result.append(inner if any(inner) else [token != bos for token in row])
    return result


def _common(rows: Sequence[Sequence[int]]) -> int:
    """Length of the longest start that all rows share."""
    shortest, longest = (list(pick(tuple(row) for row in rows)) for pick in (min, max))
    for i, (a, b) in enumerate(zip(shortest, longest, strict=False)):
        if a != b:
            return i
    return min(len(shortest), len(longest))


class _Sums:
    """Running statistics of one SAE over the batches of a contrast."""

    def __init__(self, sae: SAE, texts: int, pool: Pool) -> None:
        self.sae, self.pool = sae, pool
        self.residual = torch.zeros(texts, sae.d_in)
        self.rows: list[Any] = [None] * texts
        self.fired = torch.zeros(sae.d_sae)
        self.peak = torch.zeros(sae.d_sae)
        self.odd_peak = torch.zeros(sae.d_sae)
        self.tokens = self.sinks = 0
        self.median: float | None = None

    def add(self, rows: list[int], h: Tensor, real: Tensor, bos: Tensor, use: Tensor) -> None:
        """One batch: residuals h [rows, seq, d]; the masks are bool [rows, seq]."""
        from scipy.sparse import csr_matrix

        norms = h.norm(dim=-1)
        if self.median is None:
            self.median = float(norms[real & ~bos].median())
        sink = real & ~bos & (norms > SINK_FACTOR * self.median)
        ordinary = real & ~bos & ~sink
        use = torch.where((use & ordinary).any(1, keepdim=True), use & ordinary, use)
        f = self._encode(h, real)
        weights = use.float() / use.sum(1, keepdim=True)
        self.residual[rows] = torch.einsum("rs,rsd->rd", weights, h)
        if self.pool == "max":
            pooled = torch.where(use[..., None], f, 0.0).amax(1)
        else:
            pooled = torch.einsum("rs,rsf->rf", weights, f)
        for i, row in enumerate(rows):
            self.rows[row] = csr_matrix(pooled[i : i + 1].numpy())
        plain = f[ordinary]
        self.fired += (plain > 0).sum(0)
        self.peak = torch.maximum(self.peak, plain.amax(0)) if len(plain) else self.peak
        odd = f[bos | sink]
        self.odd_peak = torch.maximum(self.odd_peak, odd.amax(0)) if len(odd) else self.odd_peak
        self.tokens += int(ordinary.sum())
        self.sinks += int(sink.sum())

    def _encode(self, h: Tensor, real: Tensor) -> Tensor:
        if self.sae.positionwise:
            return self.sae.encode(h)
        f = torch.zeros(*h.shape[:2], self.sae.d_sae)
        for i, n in enumerate(real.sum(1).tolist()):
            f[i, :n] = self.sae.encode(h[i, :n])
        return f

    def finish(self, positives: int) -> Activations:
        from scipy.sparse import vstack

        latents = vstack(self.rows).tocsr()
        sides = [Side(self.residual[part], latents[part]) for part in (slice(0, positives), slice(positives, None))]
        return Activations(
            site=self.sae.site, pool=self.pool, positive=sides[0], negative=sides[1],
            density=self.fired / max(self.tokens, 1), peak=self.peak, odd_peak=self.odd_peak,
            tokens=self.tokens, sinks=self.sinks,
        )  # fmt: skip
