"""Mean differences at many blocks at once, each as strong as the others in what it costs; or at the best one.

At one block the mean difference (CAA) may do little where the same difference a few blocks later does much, and which
block is best depends on the concept. One can be chosen by what it does to texts that fitted nothing. Added at several,
with the strengths at which each alone would cost the same KL, none has to be chosen. What both are worth is measured by
`trimtab bench`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.effect import likelihood_shift, matched_strength, neutral, text_likelihoods, token_groups
from trimtab.find.pairs import ContrastSet
from trimtab.lm.residual import read
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model

ALONE = 0.1
_TOLERANCE = 0.3


def spread(model: Model, contrast: ContrastSet, sites: Sequence[Site] | None = None) -> dict[Site, Tensor]:
    """A vector [d] per site, float32: mean differences, balanced; by default at all of `middle_sites`."""
    return balanced(model, mean_differences(model, contrast, sites or middle_sites(model.n_layers)))


def middle_sites(n_layers: int) -> tuple[Site, ...]:
    """Blocks from half to five sixths of the depth, both included: 9 to 15 of 18."""
    return tuple(Site(layer=layer) for layer in range(n_layers // 2, max(n_layers * 5 // 6, n_layers // 2) + 1))


def best_block(
    model: Model, contrast: ContrastSet, shares: tuple[float, float, float], kl: float
) -> dict[Site, Tensor]:
    """The mean difference [d] of the whole contrast at one site, float32: where that of its train part shifts the
    likelihood of its dev part most, at a cost of `kl` nats per neutral token.

    All blocks but the last two and the first sixth are tried. `shares`: of train, dev and the rest.
    """
    parts = contrast.split(shares)
    sites = [Site(layer=layer) for layer in range(model.n_layers // 6, max(1, model.n_layers - 2))]
    known, base = neutral(model), text_likelihoods(model, parts.dev)
    found = {}
    for site, vector in mean_differences(model, parts.train, sites).items():
        if bool(vector.any()):
            found[site] = likelihood_shift(model, {site: vector}, parts.dev, kl=kl, base=base, known=known).shift
    if not found:
        raise InputError("The two sides of the contrast have the same mean residual at every site.")
    return mean_differences(model, contrast, [max(found, key=lambda site: found[site])])


def mean_differences(model: Model, contrast: ContrastSet, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Mean over positive minus mean over negative texts of each text's mean residual (BOS left out), [d] per site."""
    n = len(contrast.positive)
    return {site: h[:n].mean(0) - h[n:].mean(0) for site, h in text_means(model, contrast, sites).items()}


@torch.no_grad()
def text_means(model: Model, contrast: ContrastSet, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Each text's mean residual (BOS left out), positives first: [texts, d] float32 per site."""
    if not sites or len(set(sites)) < len(sites):
        raise InputError("Give at least one site, each once.")
    ids = [model.encode(text) for text in (*contrast.positive, *contrast.negative)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found = {site: torch.zeros(len(ids), model.d_model) for site in sites}
    for rows in token_groups([len(ids[i]) for i in order]):
        mine = [order[i] for i in rows]
        tokens, mask = model.pad([ids[i] for i in mine], side="right")
        real = mask.bool() & (tokens != model.bos_id) if model.bos_id is not None else mask.bool()
        per_token = real.float() / real.sum(1, keepdim=True).clamp(min=1)
        for site, h in read(model, tokens, list(sites), mask).items():
            found[site][mine] = torch.einsum("rt,rtd->rd", per_token, h.float()).cpu()
    return found


def balanced(model: Model, vectors: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Each vector at the strength at which it alone costs `ALONE` nats per neutral token; all-zero ones left out.

    KL grows with the square of strength, so the shares stay about equal when all are scaled together.
    """
    scaled = {}
    for site, vector in vectors.items():
        if bool(vector.any()):
            strength, cost = matched_strength(model, {site: vector}, ALONE, tolerance=_TOLERANCE)
            scaled[site] = vector * strength * (ALONE / max(cost, 1e-12)) ** 0.5
    if not scaled:
        raise InputError("The two sides of the contrast have the same mean residual at every site.")
    return scaled
