"""Why did regression not steer? Per-prompt least squares as the first pipeline did it, one cause changed at a time.

A pair gives a delta of residuals. Per prompt, the delta is written as a combination of the decoded activations of the
features that are on, and the combinations are averaged into one weight per feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from find_arms import Vectors
from torch import Tensor

from trimtab.find.contrast import Activations
from trimtab.sae.sae import SAE

RARE = 0.1


@dataclass(frozen=True, eq=False)
class Way:
    """One way to regress: on which columns, what target, and what becomes of the weights.

    bias: every column decodes one feature *with* the decoder's bias. rebuilt: the target is the difference of the
    reconstructions. bare: weights are read as lengths along decoder rows, the activations they multiplied forgotten.
    """

    bias: bool = False
    rebuilt: bool = False
    bare: bool = False


WAYS = {
    "per prompt": Way(),
    "per prompt, bias in every column": Way(bias=True),
    "per prompt, target rebuilt": Way(rebuilt=True),
    "per prompt, activations forgotten": Way(bare=True),
}


def per_prompt(
    acts: Activations, sae: SAE, way: Way, paired: bool, only: Sequence[int] | None = None
) -> dict[str, Any]:
    """The vector of one way, and what can be wrong with it, as means over prompts.

    Features: those on at the positive text and rare (density up to 0.1), or `only` these. features: how many a prompt
    has; condition: of its design; fits: share of its own delta's squares explained; carries: the same for another
    prompt's delta, at the best common factor.
    """
    f_pos, f_neg = (torch.from_numpy(side.latents.toarray()) for side in (acts.positive, acts.negative))
    usable = torch.zeros(sae.d_sae, dtype=torch.bool)
    usable[list(range(sae.d_sae)) if only is None else list(only)] = True
    if only is None and sae.density is not None:
        usable &= sae.density.cpu() <= RARE
    h_pos, h_neg = acts.positive.residual, acts.negative.residual
    if way.rebuilt:
        h_pos, h_neg = sae.decode(f_pos), sae.decode(f_neg)
    deltas = h_pos - h_neg if paired else h_pos - h_neg.mean(0)
    total, own, counts, conditions, fits = torch.zeros(sae.d_in), [], [], [], []
    for f, delta in zip(f_pos, deltas, strict=True):
        on = (usable & (f > 0)).nonzero()[:, 0]
        if not len(on):
            continue
        rows = sae.rows(on.tolist()).float()
        columns = f[on, None] * rows + (sae.b_dec if way.bias else 0)
        solution = (
            torch.linalg.lstsq(columns.T.double(), delta[:, None].double(), driver="gelsd").solution[:, 0].float()
        )
        explained = solution @ columns
        own.append(explained)
        vector = solution @ (rows if way.bare else f[on, None] * rows)
        total += vector
        counts.append(len(on))
        conditions.append(float(torch.linalg.cond(columns)))
        fits.append(1 - float((delta - explained).square().sum() / delta.square().sum()))
    return {
        "vector": {acts.site: total / max(len(own), 1)}, "features": float(np.mean(counts)),
        "condition": float(np.median(conditions)), "fits": float(np.mean(fits)), "carries": _carries(own, deltas),
    }  # fmt: skip


def _carries(own: list[Tensor], deltas: Tensor) -> float:
    """Mean squared cosine of one prompt's explained delta with the deltas of the others."""
    unit = torch.nn.functional.normalize(torch.stack(own), dim=-1)
    other = torch.nn.functional.normalize(deltas[: len(own)], dim=-1)
    cosine = (unit @ other.T).clamp(min=0).square()
    n = len(cosine)
    return float((cosine.sum() - cosine.diagonal().sum()) / max(n * (n - 1), 1))


def against(vector: Vectors, other: Vectors) -> float:
    """Cosine of two vectors at the same site."""
    (site,) = vector
    return float(torch.nn.functional.cosine_similarity(vector[site], other[site], dim=0))
