"""Controls and baselines that need the contrast set: selection with shuffled labels, and the dense mean difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError, MismatchError, UnsupportedError
from trimtab.evidence.arms import with_features
from trimtab.find.contrast import Activations, collect
from trimtab.find.pairs import ContrastSet
from trimtab.find.spread import text_means
from trimtab.find.stats import effect_size
from trimtab.spec import Site
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.build import Edit

MIN_TEXTS = 4
"""A feature is open to the shuffled selection when it fires in at least this many texts, as in the real one."""


def check_contrast(recipe: Recipe, contrast: ContrastSet) -> None:
    """Refuse a set that is not the one the recipe says it was found with."""
    made_of = recipe.about.contrast
    if made_of is not None and made_of != contrast.digest:
        raise MismatchError(
            f"The recipe was found with another contrast set ({made_of[:16]}) than {contrast.name} "
            f"({contrast.digest[:16]}); its controls must come from the same texts."
        )


def read_contrast(model: Model, sae: SAE, contrast: ContrastSet) -> Activations:
    """What the two sides of the set do at the SAE's site, each text pooled by its maximum."""
    return collect(model, sae, contrast, "max")[0]


def read_means(model: Model, recipe: Recipe, contrast: ContrastSet) -> dict[Site, Tensor]:
    """The mean residuals of the set's texts wherever the recipe adds a plain vector: see `find.spread.text_means`."""
    sites = dict.fromkeys(edit.spec.site for edit in recipe.edits if edit.spec.sae is None)
    return text_means(model, contrast, list(sites)) if sites else {}


def shuffled_selection(
    recipe: Recipe,
    sae: SAE,
    acts: Activations,
    paired: bool,
    generator: torch.Generator,
    means: Mapping[Site, Tensor] = MappingProxyType({}),
) -> Recipe:
    """The recipe that the same texts give when their labels are drawn at random.

    As many features as each edit has, those with the largest effect size between the two sides as shuffled (within
    pairs where the set is paired), at the same strengths. A plain vector becomes the mean difference of the shuffled
    sides, of the same length: `means` (see `read_means`) has what the texts do at its site. With labels that mean
    nothing, whatever is selected means nothing.
    """
    first = _shuffled_rows(len(acts.positive.residual), len(acts.negative.residual), paired, generator)
    edits: list[Edit] = []
    ranked: list[int] | None = None
    for edit in recipe.edits:
        if edit.spec.sae is None:
            both = means[edit.spec.site]
            edits.append(_along(edit, both[first].mean(0) - both[~first].mean(0)))
            continue
        if edit.spec.sae.fingerprint != sae.fingerprint:
            raise UnsupportedError("The control 'shuffled' is for recipes whose features are of the SAE given.")
        ranked = _ranked(acts, first) if ranked is None else ranked
        n = len(edit.spec.features)
        if len(ranked) < n:
            raise UnsupportedError(f"The control 'shuffled' needs {n} features that fire in the contrast set's texts.")
        edits.extend(with_features(edit, sae, ranked[:n]).edits)
        ranked = ranked[n:]
    return Recipe(tuple(edits), recipe.about)


def mean_difference(recipe: Recipe, sae: SAE, acts: Activations) -> Recipe:
    """The dense baseline: the mean difference of the residuals of the two sides (Rimsky et al. 2312.06681).

    Added wherever the recipe's first edit acts; it points away from the positive side when the recipe lowers all of
    its features.
    """
    if acts.delta.norm() == 0:
        raise InputError("The two sides of the contrast set have the same mean, so there is no direction between them.")
    scope = recipe.edits[0].spec.scope
    strengths = [s for edit in recipe.edits for s in edit.spec.strengths if edit.spec.op in ("add", "vector")]
    down = bool(strengths) and max(strengths) < 0
    return Recipe.vector(-acts.delta if down else acts.delta, sae.site, scope=scope)


def _shuffled_rows(positive: int, negative: int, paired: bool, generator: torch.Generator) -> Tensor:
    """Which of all texts, positives first, are taken for positive: bool [n]."""
    first = torch.zeros(positive + negative, dtype=torch.bool)
    if paired:
        flipped = torch.rand(positive, generator=generator) < 0.5
        return torch.cat([~flipped, flipped])
    first[torch.randperm(positive + negative, generator=generator)[:positive]] = True
    return first


def _ranked(acts: Activations, first: Tensor) -> list[int]:
    """Features by the effect size between the sides as shuffled, largest first."""
    from scipy.sparse import vstack

    both = vstack([acts.positive.latents, acts.negative.latents]).tocsr()
    columns = np.flatnonzero(np.asarray((both > 0).sum(0)).ravel() >= MIN_TEXTS)
    dense = both[:, columns].toarray()
    effects = effect_size(dense[first.numpy()], dense[~first.numpy()])
    return [int(i) for i in columns[np.argsort(-effects, kind="stable")]]


def _along(edit: Edit, direction: Tensor) -> Edit:
    vector = direction / direction.norm().clamp(min=1e-12) * edit.tensors["vector"].norm()
    return replace(edit, tensors=MappingProxyType({**edit.tensors, "vector": vector}))
