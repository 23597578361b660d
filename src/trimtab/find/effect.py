"""The direct effect of adding a vector: what it does to the likelihood of held-out texts, at a matched cost.

Vectors are compared at one *cost*, the mean KL divergence that they cause per token on neutral text, since any vector
does more when it is added with more force. No text is generated and no judge is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.pairs import ContrastSet
from trimtab.lm.head import Head
from trimtab.lm.packed import packed_layers
from trimtab.lm.reading import LOGIT_ROWS, said
from trimtab.lm.residual import SiteEdit, edit, read
from trimtab.spec import Scope, Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model

NEUTRAL = (
    "The report was finished on Tuesday and sent to the others.",
    "It was one of those days when nothing much happened.",
    "There are several ways to think about the question.",
    "He put the box on the table and looked at it for a while.",
    "Most people in the area have lived there for many years.",
    "The second part of the work took longer than the first.",
    "She said that she would call back later in the afternoon.",
    "At the end of the street there is a small building with a red door.",
)
TOKENS_PER_BATCH = 192  # where logits of all tokens are kept: for a vocabulary of 262,144 they are 200 MB


@dataclass(frozen=True)
class Shift:
    """What a vector did. `shift`: change of log-likelihood per token, in nats, of positive texts minus that of negative
    texts, with its 95 % bootstrap interval; `positive` and `negative` are its two parts. `strength` multiplied the
    vector (per site); `kl` is the cost that was reached, in nats per neutral token.
    """

    shift: float
    low: float
    high: float
    positive: float
    negative: float
    strength: float
    kl: float


@dataclass(frozen=True, eq=False)
class Neutral:
    """The neutral texts in batches of token ids, and for each batch what the unsteered model predicts after its tokens:
    probabilities [tokens, vocabulary] and their entropies [tokens], in nats. Known once, it serves every vector.
    """

    batches: tuple[list[list[int]], ...]
    plain: tuple[tuple[Tensor, Tensor], ...]


@torch.no_grad()
def likelihood_shift(
    model: Model, vectors: dict[Site, Tensor], held: ContrastSet, *, kl: float = 0.1, base: Tensor | None = None,
    known: Neutral | None = None, start: float | None = None, at: tuple[float, float] | None = None,
) -> Shift:  # fmt: skip
    """Add `vectors` (one [d] per site) everywhere but at BOS, at the strength that costs `kl`, and measure the shift.

    `base`: `text_likelihoods(model, held)`, and `known`: `neutral(model)`, when those are there already. `start`: a
    strength that is likely near, such as sqrt(kl / kl') times the one matched to another cost kl'. `at`: a strength and
    its cost that are known, instead of matching.
    """
    strength, reached = at or matched_strength(model, vectors, kl, known=known, start=start)
    plain = text_likelihoods(model, held) if base is None else base
    change = (text_likelihoods(model, held, scaled(vectors, strength)) - plain).double().numpy()
    n = len(held.positive)
    pos, neg = change[:n], change[n:]
    low, high = difference_interval(pos, neg, held.paired)
    return Shift(float(pos.mean() - neg.mean()), low, high, float(pos.mean()), float(neg.mean()), strength, reached)


@torch.no_grad()
def neutral(model: Model) -> Neutral:
    """What the unsteered model says of the neutral texts: about 110 MB for a vocabulary of 262,144."""
    ids = [model.encode(text) for text in NEUTRAL]
    parts = tuple([ids[i] for i in rows] for rows in token_groups([len(row) for row in ids]))
    plain = []
    for part in parts:
        found = [(logits - norm[:, None]) for logits, norm in _predictions(model, part, {})]
        said = torch.cat(found)
        chance = said.exp()
        plain.append((chance, -(chance * said).sum(-1)))
    return Neutral(parts, tuple(plain))


@torch.no_grad()
def matched_strength(
    model: Model, vectors: dict[Site, Tensor], kl: float = 0.1, tolerance: float = 0.1, steps: int = 12, *,
    known: Neutral | None = None, start: float | None = None,
) -> tuple[float, float]:  # fmt: skip
    """The factor for `vectors` at which the mean KL per neutral token is `kl` (within `tolerance`), and the KL reached.

    KL grows about with the square of the factor, which is where each next guess comes from, within a closing bracket.
    """
    if not kl > 0:
        raise InputError(f"The KL to match must be above 0, not {kl}.")
    if any(not bool(torch.isfinite(v).all()) or not bool(v.any()) for v in vectors.values()):
        raise InputError("A vector to add must be finite and not all zeros.")
    texts = known or neutral(model)
    factor = start or _first_guess(model, vectors, texts)
    low, high, best = 0.0, math.inf, (factor, math.inf)
    for _ in range(steps):
        cost = _cost(model, texts, scaled(vectors, factor))
        if abs(cost - kl) < abs(best[1] - kl):
            best = (factor, cost)
        if abs(cost - kl) <= tolerance * kl:
            break
        low, high = (factor, high) if cost < kl else (low, factor)
        guess = factor * min(max(math.sqrt(kl / max(cost, 1e-12)), 1 / 8), 8.0)
        factor = guess if low < guess < high else ((low + high) / 2 if math.isfinite(high) else factor * 2)
    return best


@torch.no_grad()
def text_likelihoods(model: Model, contrast: ContrastSet, vectors: dict[Site, Tensor] | None = None) -> Tensor:
    """Mean log-likelihood per token of every text, positives first, [texts], in nats; BOS is not scored."""
    ids = [model.encode(text) for text in (*contrast.positive, *contrast.negative)]
    result, head = torch.zeros(len(ids)), Head(model, LOGIT_ROWS)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    for rows in token_groups([len(ids[i]) for i in order]):
        mine = [order[i] for i in rows]
        hidden, tokens, real = _hidden(model, [ids[i] for i in mine], vectors or {})
        scored = real[:, 1:]
        own = torch.zeros(scored.shape, device=hidden.device)
        own[scored] = said(head, hidden[:, :-1][scored], tokens[:, 1:][scored])
        result[mine] = (own.sum(1) / scored.sum(1).clamp(min=1)).cpu()
    return result


def scaled(vectors: dict[Site, Tensor], factor: float) -> dict[Site, Tensor]:
    """Every vector times `factor`."""
    return {site: vector * factor for site, vector in vectors.items()}


def _hidden(model: Model, ids: Sequence[Sequence[int]], vectors: dict[Site, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Last hidden states [rows, seq, d] with the vectors added, token ids and the mask of real tokens [rows, seq]."""
    tokens, mask = model.pad(ids, side="right")
    edits = [SiteEdit(site, Scope(), None, _adding(vector)) for site, vector in vectors.items()]
    with packed_layers(model), edit(model, edits, record=False):
        out = model.hf.base_model(input_ids=tokens, attention_mask=mask, use_cache=False)
    return out.last_hidden_state, tokens, mask.bool()


def _predictions(
    model: Model, ids: Sequence[Sequence[int]], vectors: dict[Site, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, vocabulary] after every token but BOS, some at a time, and their log-sum-exp [n]; the logits are
    overwritten by the next ones.
    """
    hidden, tokens, real = _hidden(model, ids, vectors)
    counted = real & (tokens != model.bos_id) if model.bos_id is not None else real
    head = Head(model, LOGIT_ROWS)
    for part in hidden[counted].split(LOGIT_ROWS):
        logits = head(part, None)
        yield logits.values[:, : head.words], logits.mass.logsumexp(-1)


def _adding(vector: Tensor):  # type: ignore[no-untyped-def]
    return lambda h: vector.to(h.device, h.dtype).expand_as(h)


def _cost(model: Model, texts: Neutral, vectors: dict[Site, Tensor]) -> float:
    total, count = 0.0, 0
    for part, (chance, entropy) in zip(texts.batches, texts.plain, strict=True):
        expected = [
            norm - (own * logits).sum(-1)
            for own, (logits, norm) in zip(chance.split(LOGIT_ROWS), _predictions(model, part, vectors), strict=True)
        ]
        total += float((torch.cat(expected) - entropy).sum())
        count += len(entropy)
    return total / count


def _first_guess(model: Model, vectors: dict[Site, Tensor], texts: Neutral) -> float:
    """A tenth of the residual's norm, for the site where that is least."""
    tokens, mask = model.pad([row for part in texts.batches for row in part], side="right")
    stream = read(model, tokens, list(vectors), mask)
    real = mask.bool() & ((tokens != model.bos_id) if model.bos_id is not None else mask.bool())
    return min(
        float(stream[site][real].float().norm(dim=-1).median() / vector.norm()) for site, vector in vectors.items()
    ) * 0.1  # fmt: skip


def token_groups(lengths: list[int]) -> list[list[int]]:
    """Consecutive indices, cut so that longest times count stays within `TOKENS_PER_BATCH`."""
    groups: list[list[int]] = [[]]
    for i, _ in enumerate(lengths):
        mine = [*groups[-1], i]
        if len(mine) > 1 and max(lengths[j] for j in mine) * len(mine) > TOKENS_PER_BATCH:
            groups.append([i])
        else:
            groups[-1] = mine
    return groups


def difference_interval(
    pos: np.ndarray, neg: np.ndarray, paired: bool, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % bootstrap interval of mean(pos) - mean(neg), resampling pairs where there are pairs."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(pos), (draws, len(pos)))
    second = first if paired else rng.integers(0, len(neg), (draws, len(neg)))
    low, high = np.quantile(pos[first].mean(1) - neg[second].mean(1), [0.025, 0.975])
    return float(low), float(high)
