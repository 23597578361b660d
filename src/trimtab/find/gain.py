"""The direct effect of every feature at once, to first order: one backward pass instead of one forward pass each.

Adding v at all positions of a site changes the log-likelihood of positive against negative texts by about G . v, and
the next-token distribution of neutral texts by a KL of about v' F v / 2, where F is the Fisher information. So the
strength that costs a given KL, and the likelihood gained for it, have closed forms for all directions together. The
measured counterpart, for a few vectors, is `effect.likelihood_shift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.find.effect import NEUTRAL, token_groups
from trimtab.find.pairs import ContrastSet
from trimtab.lm.residual import SiteEdit, edit
from trimtab.spec import Scope, Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model


@dataclass(frozen=True, eq=False)
class Curvature:
    """Samples g [m, d] of the score at a site: v' F v is about the mean of (g . v)^2, in squared nats per token."""

    site: Site
    samples: Tensor

    def kl(self, vectors: Tensor) -> Tensor:
        """Predicted KL per neutral token of adding each of vectors [n, d]: [n], in nats."""
        return (vectors.float() @ self.samples.T).square().mean(1) / 2

    def strengths(self, vectors: Tensor, kl: float) -> Tensor:
        """The factor for each vector at which it costs `kl`: [n]; infinite for a vector that changes nothing."""
        return (kl / self.kl(vectors)).sqrt()


def curvature(model: Model, site: Site, draws: int = 4, seed: int = 0) -> Curvature:
    """Sample the score of the model's own predictions on neutral texts with respect to what is added at `site`.

    Each draw takes a token from every predicted distribution and a random sign for every position, so that the
    terms of different positions cancel in expectation; every text gives its own sample, and every token counts once.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = sorted((model.encode(text) for text in NEUTRAL), key=len)
    samples, total = [], 0
    for rows in token_groups([len(row) for row in ids]):
        log_probs, tokens, real, added = _graph(model, site, [ids[i] for i in rows])
        counted = real & (tokens != model.bos_id) if model.bos_id is not None else real
        flat = log_probs.detach().exp().cpu().flatten(0, 1)
        for draw in range(draws):
            drawn = torch.multinomial(flat, 1, generator=generator).view(*tokens.shape, 1).to(log_probs.device)
            signs = (torch.randint(0, 2, tokens.shape, generator=generator) * 2 - 1).to(log_probs.device)
            value = (log_probs.gather(-1, drawn)[..., 0] * signs * counted).sum()
            (gradient,) = torch.autograd.grad(value, added, retain_graph=draw + 1 < draws)
            samples.append(gradient.float().cpu())
        total += int(counted.sum())
    return Curvature(site, torch.cat(samples) * (len(ids) / total) ** 0.5)


def likelihood_gradient(model: Model, site: Site, contrast: ContrastSet) -> Tensor:
    """G [d]: derivative of (mean log-likelihood per token of positive minus of negative texts) by what is added."""
    texts = [*contrast.positive, *contrast.negative]
    shares = [1 / len(contrast.positive)] * len(contrast.positive) + [-1 / len(contrast.negative)] * len(
        contrast.negative
    )
    ids = [model.encode(text) for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    total = torch.zeros(model.d_model)
    for rows in token_groups([len(ids[i]) for i in order]):
        mine = [order[i] for i in rows]
        log_probs, tokens, real, added = _graph(model, site, [ids[i] for i in mine])
        own = log_probs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0] * real[:, 1:]
        weights = torch.tensor([shares[i] for i in mine], device=own.device)
        value = (own.sum(1) / real[:, 1:].sum(1).clamp(min=1) * weights).sum()
        total += torch.autograd.grad(value, added)[0].float().cpu().sum(0)
    return total


def gains(gradient: Tensor, curve: Curvature, vectors: Tensor, kl: float = 0.1) -> Tensor:
    """First-order likelihood shift [n], in nats per token, of each of vectors [n, d] at the strength that costs `kl`.

    A direction that changes predictions 10,000 times less than the average one gains nothing: its strength would be
    beyond all bounds.
    """
    unit = torch.nn.functional.normalize(vectors.float().cpu(), dim=-1)
    average = curve.samples.square().mean() / 2
    return torch.where(curve.kl(unit) > 1e-4 * average, (unit @ gradient) * curve.strengths(unit, kl), 0.0)


def _graph(model: Model, site: Site, ids: list[list[int]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities that depend, for autograd, on what is added [rows, d] at all positions but BOS."""
    tokens, mask = model.pad(ids, side="right")
    with torch.enable_grad():
        added = torch.zeros(len(ids), model.d_model, device=tokens.device, requires_grad=True)
        change = SiteEdit(site, Scope(), None, lambda h: added[:, None, :].expand_as(h))
        with edit(model, [change], record=False):
            logits = model.hf(input_ids=tokens, attention_mask=mask, use_cache=False).logits
        return logits.float().log_softmax(-1), tokens, mask.bool(), added
