"""What a feature did at each token of a text, read with the unsteered model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from trimtab.lm.reading import bos_length as bos_length
from trimtab.lm.reading import log_likelihoods as log_likelihoods
from trimtab.lm.reading import refuse_edited as refuse_edited
from trimtab.lm.reading import residuals as residuals

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE


def trace(model: Model, sae: SAE, features: Sequence[int], token_ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Activations f_i of `features` at every token but BOS: one float32 tensor [tokens, features] per list of ids.

    Read from the unsteered model at `sae.site`. Ids are those of `Model.encode` or of a record: BOS first where the
    model has one; its row is left out, so row 0 belongs to the first real token.
    """
    latents = sae.latents(features)
    out: list[Tensor | None] = [None] * len(token_ids)
    for index, h in residuals(model, sae.site, token_ids):
        out[index] = latents.encode(h.to(sae.device)).cpu()
    return [t for t in out if t is not None]
