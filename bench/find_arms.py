"""The ways to steer that the table of methods compares: each a name and one vector per site."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from find_sets import Task, by_effect, first, shuffled, top
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.cluster import cluster
from trimtab.find.contrast import Activations
from trimtab.find.find import Settings
from trimtab.find.fit import DENSE, METHODS, fit
from trimtab.find.output import output_scores
from trimtab.find.probe import separating
from trimtab.find.select import FeatureScore
from trimtab.lm.model import Model
from trimtab.sae.sae import SAE
from trimtab.spec import Site

Vectors = dict[Site, Tensor]
Arms = dict[str, Vectors]

LIMIT = 32
OWN = "mean_difference"


def methods(model: Model, task: Task, sae: SAE, scores: Sequence[FeatureScore]) -> Arms:
    """Single features by what they read and by what they write, every method on the default 32, dense baselines."""
    acts, chosen = task.train[0], [one.index for one in top(scores)]
    arms: Arms = {name: _vector(name, acts, sae, (), task.paired) for name in DENSE}
    if not chosen:
        return arms
    rare = [one for one in scores if one.density <= Settings().max_density][: 4 * LIMIT]
    said = output_scores(model, sae, [one.index for one in rare])
    singles = {
        "one feature, by effect": rare[0].index,
        "one feature, by output score": max(said, key=lambda one: one.score).index,
        "one feature, by gain": max(rare, key=lambda one: one.gain or 0.0).index,
    }
    arms |= {name: {sae.site: sae.rows([index])[0]} for name, index in singles.items()}
    return arms | {name: _vector(name, acts, sae, chosen, task.paired) for name in METHODS}


def choices(task: Task, sae: SAE, scores: Sequence[FeatureScore]) -> Arms:
    """The mean difference on 32 features chosen otherwise: by order, by how rare, or to read the contrast together."""
    ways = {f"density up to {d:g}": top(scores, density=d) for d in (0.01, 1.0)}
    ways["by gain"] = top(scores, order="gain")
    chosen = {name: [one.index for one in some] for name, some in ways.items()}
    chosen["together"] = separating(task.train[0], LIMIT)
    acts = task.train[0]
    return {name: _vector(OWN, acts, sae, some, task.paired) for name, some in chosen.items()}


def clusters(task: Task, sae: SAE, scores: Sequence[FeatureScore], most: int = 3) -> Arms:
    """The largest clusters of the default 32 features, weighed by mean difference."""
    acts, features = task.train[0], [one.index for one in top(scores)]
    found = cluster(sae, features, acts).clusters[:most] if features else ()
    return {f"cluster {i}": _vector(OWN, acts, sae, one.features, task.paired) for i, one in enumerate(found, 1)}


def controls(task: Task, sae: SAE) -> Arms:
    """What no contrast has chosen: a random direction, random features, and labels drawn at random."""
    generator = torch.Generator().manual_seed(0)
    wrong = shuffled(task.train[0])
    alive = np.flatnonzero((task.train[0].peak > 0).numpy())
    some = [int(alive[i]) for i in torch.randperm(len(alive), generator=generator)[:LIMIT]]
    return {
        "random direction": {sae.site: torch.randn(sae.d_in, generator=generator)},
        "32 random features": _vector("equal", task.train[0], sae, some, False),
        "labels shuffled, caa": _vector("caa", wrong, sae, (), False),
        "labels shuffled, 32 features": _vector(OWN, wrong, sae, by_effect(wrong, LIMIT), False),
    }


def layers(task: Task, saes: Sequence[SAE], several: Sequence[Sequence[FeatureScore]], others: Vectors) -> Arms:
    """One site against two and four; `others` are mean differences of residuals at sites without an SAE."""
    features = [[one.index for one in top(some)] for some in several]
    early, late = (_vector("caa", acts, sae, (), task.paired) for acts, sae in zip(task.train, saes, strict=True))
    arms = {"caa, late": late, "caa, both": early | late, "caa, four sites": early | late | others}
    if not all(features):
        return arms
    one, two = (
        _vector(OWN, acts, sae, some, task.paired) for acts, sae, some in zip(task.train, saes, features, strict=True)
    )
    return arms | {"32 features, late": two, "32 features, both": one | two}


def few(task: Task, sae: SAE, n: int, seed: int) -> Arms:
    """Everything from `n` texts a side: the mean difference of residuals, and of 32 features by effect."""
    acts = first(task.train[0], n, seed, task.paired)
    return {
        "caa": _vector("caa", acts, sae, (), task.paired),
        OWN: _vector(OWN, acts, sae, by_effect(acts, LIMIT), task.paired),
    }


def _vector(method: str, acts: Activations, sae: SAE, features: Sequence[int], paired: bool) -> Vectors:
    """The fitted vector; empty when the method has nothing to say."""
    try:
        return dict(fit(method, acts, sae, features, paired=paired).vectors)
    except InputError:
        return {}
