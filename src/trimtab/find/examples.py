"""Where features fire in the texts of a contrast: the words that say to a person what a feature is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from trimtab.find.contrast import SINK_FACTOR, batches, tokenise
from trimtab.lm.pieces import pieces
from trimtab.lm.residual import read

if TYPE_CHECKING:
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE


@dataclass(frozen=True)
class Example:
    """A text on which a feature fires: its side, its tokens (BOS left out) and the activation at each."""

    positive: bool
    tokens: tuple[str, ...]
    values: tuple[float, ...]

    @property
    def peak(self) -> float:
        """The largest activation."""
        return max(self.values)


@torch.no_grad()
def examples(
    model: Model, sae: SAE, features: Sequence[int], contrast: ContrastSet, most: int = 4
) -> dict[int, tuple[Example, ...]]:
    """For each feature the `most` texts of `contrast` with its strongest tokens, strongest first.

    One forward pass up to the SAE's site. BOS and attention sinks count as not firing.
    """
    if not features:
        return {}
    ids = tokenise(model, contrast)
    latents = sae.latents(list(features))
    firing: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    for batch in batches(ids):
        h = read(model, batch.ids, [sae.site], batch.mask)[sae.site].float()
        for i, row in enumerate(batch.rows):
            mine = h[i, : len(ids[row])].to(sae.device)
            norms = mine.norm(dim=-1)
            odd = torch.tensor([token == model.bos_id for token in ids[row]], device=mine.device)
            odd |= norms > SINK_FACTOR * norms[~odd].median()
            firing[row] = latents.encode(mine).masked_fill(odd[:, None], 0.0).cpu()
    peaks = torch.stack([one.amax(0) for one in firing])
    found = {}
    for column, feature in enumerate(features):
        best = [
            row for row in peaks[:, column].argsort(descending=True, stable=True).tolist() if peaks[row, column] > 0
        ]
        found[feature] = tuple(
            _example(model, ids[row], firing[row][:, column].tolist(), row < len(contrast.positive))
            for row in best[:most]
        )
    return found


def peak_words(found: Sequence[Example], most: int = 4) -> list[str]:
    """The distinct words that hold the strongest token of each example, strongest first; a word may be many tokens."""
    words: dict[str, None] = {}
    for one in sorted(found, key=lambda one: -one.peak):
        at = max(range(len(one.values)), key=lambda i: one.values[i])
        first = at
        while first and not one.tokens[first][:1].isspace() and one.tokens[first][:1].isalnum():
            first -= 1
        last = at + 1
        while last < len(one.tokens) and one.tokens[last][:1].isalnum():
            last += 1
        words.setdefault("".join(one.tokens[first:last]).strip().lower())
    return [word for word in words if word][:most]


def _example(model: Model, ids: Sequence[int], values: Sequence[float], positive: bool) -> Example:
    start = 1 if ids and ids[0] == model.bos_id else 0
    return Example(positive, tuple(pieces(model, ids, start)), tuple(values[start:]))
