"""What a strength does to text: how likely the unsteered model finds what is written, how repetitive it is, and
whether the recipe's features come back in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.lm.ngrams import repetition
from trimtab.lm.reading import bos_length, log_likelihoods, refuse_edited, residuals
from trimtab.spec import Sampling
from trimtab.steer.kl import PROMPT_TOKENS, beginning

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

NEW_TOKENS = 32
"""Tokens written for each prompt, which is the first `PROMPT_TOKENS` tokens of a neutral text."""


@dataclass(frozen=True)
class Texts:
    """Means over the generated tokens of some texts, all as the unsteered model reads them.

    `nats`: -log p of a token, so that perplexity is exp(nats). `repetition`: share of 4-grams that occurred before in
    the same text. `response`: sum over the recipe's features of f_i * ||d_i||, in residual units; None without an SAE.
    """

    nats: float
    repetition: float
    response: float | None


def write_and_read(
    model: Model,
    recipes: Sequence[Recipe | None],
    prompts: Sequence[str],
    sae: SAE | None = None,
    features: Sequence[int] = (),
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Texts]:
    """Continue the beginning of every prompt with every recipe (None: unsteered), from the same random numbers."""
    refuse_edited(model)
    starts, written = write(model, recipes, prompts, seed, progress)
    said = log_likelihoods(model, written, starts)
    response = _responses(model, sae, features, written, starts)
    n, out = len(prompts), []
    for first in range(0, len(written), n):
        mine = range(first, first + n)
        tokens = [written[i][starts[i] :] for i in mine]
        repeated = [r for r in map(repetition, tokens) if r is not None]
        out.append(
            Texts(
                nats=-float(torch.cat([said[i] for i in mine]).double().mean()),
                repetition=sum(repeated) / max(1, len(repeated)),
                response=float(torch.cat([response[i] for i in mine]).double().mean()) if response else None,
            )
        )
    return out


def write(
    model: Model,
    recipes: Sequence[Recipe | None],
    prompts: Sequence[str],
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Where each text's generated tokens start, and its ids; recipe by recipe, prompt by prompt.

    A text is the first `PROMPT_TOKENS` tokens of a prompt and up to `NEW_TOKENS` more at temperature 1.
    """
    from trimtab.lm.decode import Row, decode
    from trimtab.lm.memory import rows_that_fit
    from trimtab.lm.sampling import stream_key

    sampling = Sampling(max_new_tokens=NEW_TOKENS)
    openings = [beginning(model, text, PROMPT_TOKENS) for text in prompts]
    rows = [
        Row(ids, stream_key(seed, text, 0), sampling, recipe)
        for recipe in recipes
        for text, ids in zip(prompts, openings, strict=True)
    ]
    done = decode(
        model,
        rows,
        batch_size=rows_that_fit(model, max(map(len, openings)) + NEW_TOKENS),
        stops=model.eos_ids,
        progress=None if progress is None else lambda now: progress("writing", now.tokens, now.tokens + now.left),
    )
    written = [row.prompt + one.tokens for row, one in zip(rows, done, strict=True)]
    return [len(row.prompt) for row in rows], written


def _responses(
    model: Model, sae: SAE | None, features: Sequence[int], written: Sequence[tuple[int, ...]], starts: Sequence[int]
) -> list[Tensor]:
    """The response at each generated token of each text; empty without an SAE or features."""
    if sae is None or not features:
        return []
    latents, lengths = sae.latents(features), sae.rows(features).norm(dim=1).cpu()
    out = [torch.empty(0)] * len(written)
    for i, h in residuals(model, sae.site, written):
        out[i] = latents.encode(h[starts[i] - bos_length(model, written[i]) :].to(sae.device)).cpu() @ lengths
    return out
