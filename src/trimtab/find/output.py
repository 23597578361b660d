"""What adding a feature does to the model's output: the output score, without labels and in one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.lm.lens import promoted, words
from trimtab.lm.residual import SiteEdit, edit, read
from trimtab.spec import Scope

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

PROMPT = "From my experience,"
ROWS = 32


@dataclass(frozen=True)
class OutputScore:
    """The output score of one feature and its parts.

    score = (1 - best_rank / vocabulary) * probability, where `best_rank` (from 0) is the best rank and `probability`
    the largest probability that any promoted token reaches after the feature was amplified. `promoted`: those tokens.
    """

    index: int
    score: float
    best_rank: int
    probability: float
    promoted: tuple[str, ...]


@torch.no_grad()
def output_scores(
    model: Model, sae: SAE, features: Sequence[int], *, prompt: str = PROMPT, strength: float = 10.0, k: int = 20
) -> list[OutputScore]:
    """Score how surely each feature, when amplified, makes the model say what its decoder row promotes.

    After Arad, Mueller and Belinkov (2505.20063): the promoted tokens T are the top `k` of the logit lens of the
    decoder row; the feature's activation at the last token of `prompt` is raised by `strength` times the largest
    activation of any feature there. Features of a small score rarely steer, whatever makes them fire.
    """
    chosen = list(sae.features(features))
    if not chosen:
        return []
    ids = torch.tensor([model.encode_prompt(prompt)], device=model.device)
    h = read(model, ids, [sae.site])[sae.site][0].float()
    amount = strength * float(sae.encode(h.to(sae.device))[-1].max())
    if amount <= 0:
        amount = float(h[-1].norm())
    rows = sae.latents(chosen).rows.to(model.device)
    tops = promoted(model, rows, k)
    last = ids.shape[1] - 1
    # Picked out, not sliced: rows that lie apart in memory are multiplied several times as slowly.
    kept = torch.tensor([last], device=model.device)
    scope = Scope(window=(last, last + 1), bos=True)
    result = []
    for start in range(0, len(chosen), ROWS):
        moves = rows[start : start + ROWS] * amount
        with edit(model, [SiteEdit(sae.site, scope, None, _adder(moves))], record=False):
            logits = model.hf(input_ids=ids.repeat(len(moves), 1), use_cache=False, logits_to_keep=kept).logits
        for i, row in enumerate(logits[:, -1].float()):
            top = tops[start + i].to(row.device)
            best = int((row > row[top].max()).sum())
            probability = float((row[top].max() - row.logsumexp(0)).exp())
            score = (1 - best / len(row)) * probability
            result.append(OutputScore(chosen[start + i], score, best, probability, words(model, top)))
    return result


def _adder(moves: Tensor) -> Callable[[Tensor], Tensor]:
    def delta(h: Tensor) -> Tensor:
        return moves[:, None, :].to(h.device).expand_as(h)

    return delta
