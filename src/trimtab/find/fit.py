"""From features and a contrast to one vector: equal weights, latent differences, regressions, and dense baselines.

All methods have one shape: activations of the training texts (and the chosen features) in, weights and a vector out.
Weights are in activation units: the vector is the sum of weight times decoder row. Dense methods have no weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.contrast import Activations
from trimtab.find.regress import elastic_net, logistic, non_negative, ridge
from trimtab.find.stats import separation
from trimtab.sae.sae import SAE
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.steer.recipe import Recipe

FGAA_DENSITY = 0.01


@dataclass(frozen=True, eq=False)
class Fit:
    """One vector [d] per site, and for methods on features their weights; `setting` is what cross-validation chose."""

    method: str
    vectors: Mapping[Site, Tensor]
    weights: Mapping[Site, Mapping[int, float]]
    setting: Mapping[Site, float | None]


@dataclass(frozen=True, eq=False)
class Task:
    """What a fitting method gets: one site's activations, its SAE, the chosen features and their signs."""

    acts: Activations
    sae: SAE
    features: tuple[int, ...]
    signs: tuple[int, ...]
    paired: bool

    @property
    def rows(self) -> Tensor:
        """Decoder rows of the features, [n, d]."""
        return self.sae.rows(self.features).float().cpu()

    def deltas(self) -> Tensor:
        """Residual deltas [n, d]: of each pair, or of each positive text from the mean negative one."""
        pos, neg = self.acts.positive.residual, self.acts.negative.residual
        return pos - neg if self.paired else pos - neg.mean(0)


class Weights:
    """What a method on features returns: weights [n], and the setting that cross-validation chose, if any."""

    def __init__(self, values: Tensor, setting: float | None = None) -> None:
        self.values, self.setting = values, setting


def fit(
    method: str,
    acts: Activations | Sequence[Activations],
    saes: SAE | Sequence[SAE],
    features: Sequence[int] | Sequence[Sequence[int]] = (),
    signs: Sequence[int] | Sequence[Sequence[int]] | None = None,
    *,
    paired: bool = False,
) -> Fit:
    """Fit by name (`METHODS` and `DENSE` list them), at one site or at several: then every argument is a list.

    features, signs: of each site (+1 where nothing is said). `fgaa` chooses its own features and ignores them.
    """
    if method not in METHODS and method not in DENSE:
        raise InputError(f"Unknown method {method!r}. Valid: {', '.join([*METHODS, *DENSE])}.")
    each = [acts] if isinstance(acts, Activations) else list(acts)
    several = [saes] if isinstance(saes, SAE) else list(saes)
    lists = _per_site(features, len(each))
    marks = [[1] * len(some) for some in lists] if signs is None else _per_site(signs, len(each))
    vectors: dict[Site, Tensor] = {}
    weights: dict[Site, dict[int, float]] = {}
    settings: dict[Site, float | None] = {}
    for one, sae, some, sign in zip(each, several, lists, marks, strict=True):
        task = Task(one, sae, sae.features(some), tuple(sign), paired)
        if method in DENSE:
            vectors[one.site], settings[one.site] = DENSE[method](task)
            continue
        if method == "fgaa":
            task = _fgaa_task(task)
        if not task.features:
            raise InputError(f"The method {method!r} needs at least one feature at {one.site}.")
        found = METHODS[method](task)
        values = found.values.float()
        vectors[one.site] = values @ task.rows
        weights[one.site] = dict(zip(task.features, values.tolist(), strict=True))
        settings[one.site] = found.setting
    if not any(bool(vector.any()) for vector in vectors.values()):
        raise InputError(f"The method {method!r} gave every feature the weight 0: the contrast does not need them.")
    return Fit(method, vectors, weights, settings)


def of_vectors(vectors: Mapping[Site, Tensor]) -> Recipe:
    """The recipe that adds a vector [d] at each site, as they are."""
    from trimtab.steer.recipe import Recipe

    edits = [Recipe.vector(vector, site) for site, vector in vectors.items()]
    return sum(edits[1:], edits[0])


def held_auc(found: Fit, acts: Activations | Sequence[Activations]) -> float:
    """AUC on other texts of the fit's own score: the weighted activations, or for dense fits the projection."""
    each = [acts] if isinstance(acts, Activations) else list(acts)
    scores = []
    for part in ("positive", "negative"):
        total = torch.zeros(getattr(each[0], part).residual.shape[0])
        for one in each:
            side, mine = getattr(one, part), found.weights.get(one.site)
            if mine:
                total += side.dense(list(mine)) @ (torch.tensor(list(mine.values())) * found.vectors[one.site].norm())
            else:
                total += side.residual @ found.vectors[one.site]
        scores.append(total[:, None].numpy())
    return float(separation(scores[0], scores[1]).auc[0])


def _equal(task: Task) -> Weights:
    """The same length along every decoder row."""
    return Weights(torch.tensor(task.signs) / task.rows.norm(dim=-1).clamp(min=1e-12) / len(task.signs))


def _mean_difference(task: Task) -> Weights:
    """Mean activation on positive minus on negative texts."""
    pos, neg = (side.dense(task.features) for side in (task.acts.positive, task.acts.negative))
    return Weights(pos.mean(0) - neg.mean(0))


def _per_prompt(task: Task) -> Weights:
    """For each prompt, the combination of its decoded active features that best fits its delta; then the mean.

    Least squares of the delta on f_i times decoder row i, over the features active on the positive text, as in the
    contrastive pipeline that this project grew out of. Few equations are shared between prompts, so it overfits each.
    """
    rows, f = task.rows, task.acts.positive.dense(task.features)
    total = torch.zeros(len(task.features))
    for active, delta in zip(f, task.deltas(), strict=True):
        on = active.nonzero()[:, 0]
        if len(on):
            solution = torch.linalg.lstsq((active[on, None] * rows[on]).T, delta[:, None], driver="gelsd").solution[
                :, 0
            ]
            total[on] += solution * active[on]
    return Weights(total / len(f))


def _logistic(task: Task) -> Weights:
    """Coefficients of a logistic classifier of the two sides, each times its feature's own variance.

    The classifier works on standardised activations; a coefficient times the deviation is how far the feature moves
    when the classifier's score rises along its own gradient.
    """
    pos, neg = (side.dense(task.features) for side in (task.acts.positive, task.acts.negative))
    coefficient, chosen = logistic(pos, neg)
    return Weights(coefficient * torch.cat([pos, neg]).var(0, unbiased=False), chosen)


def _regression(
    solve: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float | None]],
) -> Callable[[Task], Weights]:
    """Regression of the deltas on decoder rows; all prompts share the weights, cross-validated over prompts."""

    def method(task: Task) -> Weights:
        values, chosen = solve(task.rows.double().numpy(), task.deltas().double().numpy())
        return Weights(torch.from_numpy(values).float(), chosen)

    return method


def _fgaa_task(task: Task) -> Task:
    """The features that FGAA keeps: not dense (over 1 % of tokens), the 32 of largest latent difference.

    Its filter for features of BOS is not needed, since BOS is never pooled.
    """
    acts = task.acts
    difference = torch.from_numpy(np.asarray(acts.positive.latents.mean(0) - acts.negative.latents.mean(0)).ravel())
    density = acts.density if task.sae.density is None else task.sae.density.cpu()
    difference[density > FGAA_DENSITY] = 0
    best = difference.topk(min(32, len(difference)))
    kept = best.indices[best.values > 0].tolist()
    return Task(acts, task.sae, tuple(kept), (1,) * len(kept), task.paired)


def _fgaa(task: Task) -> Weights:
    """Latent difference of the kept features, normalised to sum 1 (Soo et al. 2501.09929).

    Without their effect approximator, which exists only for two SAEs of Gemma 2: the decoder takes its place.
    """
    values = _mean_difference(task).values
    return Weights(values / values.sum().clamp(min=1e-12))


def _caa(task: Task) -> tuple[Tensor, float | None]:
    """Mean difference of residuals (contrastive activation addition, Rimsky et al. 2312.06681)."""
    return task.acts.delta, None


def _pca(task: Task) -> tuple[Tensor, float | None]:
    """First principal direction of the deltas, uncentred, pointing to the positive side (Zou et al. 2310.01405)."""
    first = torch.linalg.svd(task.deltas(), full_matrices=False).Vh[0]
    along = torch.dot(first, task.acts.delta)
    return first * along.abs().clamp(min=1e-6) * (1 if along >= 0 else -1), None


def _probe(task: Task) -> tuple[Tensor, float | None]:
    """Direction of a logistic probe on the residuals, in residual units (cross-validated)."""
    coefficient, chosen = logistic(task.acts.positive.residual, task.acts.negative.residual)
    return coefficient / coefficient.norm().clamp(min=1e-12) * task.acts.delta.norm(), chosen


METHODS: Mapping[str, Callable[[Task], Weights]] = {
    "equal": _equal,
    "mean_difference": _mean_difference,
    "per_prompt": _per_prompt,
    "ridge": _regression(ridge),
    "non_negative": _regression(non_negative),
    "elastic_net": _regression(elastic_net),
    "logistic": _logistic,
    "fgaa": _fgaa,
}
DENSE: Mapping[str, Callable[[Task], tuple[Tensor, float | None]]] = {"caa": _caa, "pca": _pca, "probe": _probe}


def _per_site(values: Sequence[int] | Sequence[Sequence[int]], sites: int) -> list[list[int]]:
    lists = [list(value) for value in values if not isinstance(value, int)]
    if not lists:
        flat = [value for value in values if isinstance(value, int)]
        lists = [flat] if flat or sites == 1 else [[] for _ in range(sites)]
    if len(lists) != sites:
        raise InputError(f"Features are given for {len(lists)} sites, but there are {sites}. Give one list per site.")
    return lists
