"""Which tokens a recipe really edited, and by how much, in texts that it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from trimtab.evidence.values import RECIPE, Edited, Sample
from trimtab.lm.residual import Positions, edit

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.steer.recipe import Recipe


@torch.no_grad()
def receipt(model: Model, recipe: Recipe, samples: Sequence[Sample]) -> tuple[Edited, ...]:
    """Per site, over the recipe's first sample of each prompt: tokens edited, mean of ||change|| / ||residual||.

    Each text is read again with the recipe in place, every token at the position and in the part that it had when it
    was written. The last token is left out: the model wrote it and read it no more.
    """
    edits = type(recipe).compile_rows([recipe], model)
    counts: dict[str, list[int]] = {str(site): [0, 0, 0, 0] for site in recipe.sites}
    ratios: dict[str, list[float]] = {str(site): [] for site in recipe.sites}
    for sample in samples:
        if sample.sample or sample.arm != RECIPE:
            continue
        ids = torch.tensor([sample.token_ids[:-1]], device=model.device)
        at = torch.arange(ids.shape[1])[None]
        start = len(sample.token_ids) - len(sample.tokens)
        bos = ids.cpu() == model.bos_id if model.bos_id is not None else torch.zeros_like(at).bool()
        now = Positions(at, at >= start, torch.ones_like(bos), bos)
        with edit(model, edits, positions=lambda now=now: now, must_act=False) as found:  # type: ignore[misc]
            model.hf.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        for site, count in counts.items():
            mine = [step for step in found.steps if str(step.site) == site]
            places = {place for step in mine for place in step.positions[0]}
            new = [sum(p < start for p in places), start, sum(p >= start for p in places), len(ids[0]) - start]
            counts[site] = [a + b for a, b in zip(count, new, strict=True)]
            ratios[site] += [step.ratio[0] for step in mine if step.ratio[0] is not None]
    return tuple(
        Edited(
            site=site,
            prompt_tokens=(count[0], count[1]),
            generated_tokens=(count[2], count[3]),
            ratio=sum(ratios[site]) / max(1, len(ratios[site])),
        )
        for site, count in counts.items()
    )
