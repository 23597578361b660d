"""Ways to steer with what was found, each fitted on train and measured on dev at one cost; the recipe of the best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from trimtab.errors import InputError
from trimtab.find.cluster import Clustering
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.effect import Shift, likelihood_shift, neutral, text_likelihoods
from trimtab.find.fit import DENSE, Fit, fit, held_auc, of_vectors
from trimtab.find.pairs import ContrastSet, Splits
from trimtab.find.select import FeatureScore
from trimtab.find.spread import spread
from trimtab.steer.strength import factor_for_kl

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.find.find import Settings
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

BASELINE = "caa"
MANY_BLOCKS = "many blocks"
Group = tuple[tuple[int, ...], ...]
T = TypeVar("T")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to steer: a name (`best feature`, `all features`, `cluster 1`, ...), features of each site, the fit, and
    what it does on dev at the matched cost. Those without features are `many blocks` (`find.spread`) and dense
    fits, by the name of their method. auc: how well the fit's own score tells dev apart; None for `many blocks`.
    """

    name: str
    features: Group
    fit: Fit
    auc: float | None
    dev: Shift


def groups_of(
    features: Sequence[Sequence[FeatureScore]], clusterings: Sequence[Clustering], clusters: int
) -> dict[str, Group]:
    """The best feature, all features of all sites, and the largest clusters of each site; no two groups are equal."""
    if not any(features):
        return {}
    empty: list[tuple[int, ...]] = [()] * len(features)
    best = max(range(len(features)), key=lambda i: max((one.gain or 0.0 for one in features[i]), default=-float("inf")))
    found: dict[str, Group] = {
        "best feature": (*empty[:best], (features[best][0].index,), *empty[best + 1 :]),
        "all features": tuple(tuple(one.index for one in some) for some in features),
    }
    ranked = [(i, one.features) for i, some in enumerate(clusterings) for one in some.clusters]
    ranked.sort(key=lambda pair: -len(pair[1]))
    for number, (i, members) in enumerate(ranked[:clusters], start=1):
        found[f"cluster {number}"] = (*empty[:i], members, *empty[i + 1 :])
    distinct: dict[str, Group] = {}
    for name, group in found.items():
        if group not in distinct.values():
            distinct[name] = group
    return distinct


class Measure:
    """Fits candidates on train and measures them on dev, and at last on test; what needs no steering is read once."""

    def __init__(
        self, model: Model, saes: Sequence[SAE], train: list[Activations], dev: list[Activations], parts: Splits,
        kl: float,
    ) -> None:  # fmt: skip
        self.model, self.saes, self.train, self.dev, self.parts, self.kl = model, saes, train, dev, parts, kl
        self.plain: Tensor = text_likelihoods(model, parts.dev)
        self.known = neutral(model)

    def all(self, groups: dict[str, Group], method: str, progress: Progress) -> tuple[Candidate, ...]:
        """A candidate for each group (for a dense method: one), the many blocks, and last the baseline."""
        none: Group = ((),) * len(self.saes)
        made: list[Candidate] = []
        asked = [(name, method, group) for name, group in groups.items()]
        if method in DENSE:
            asked = [(method, method, none)] if method != BASELINE else []
        asked += [(name, name, none) for name in (MANY_BLOCKS, BASELINE)]
        for number, one in enumerate(asked):
            progress("measuring", number, len(asked))
            made.append(self.candidate(*one))
        progress("measuring", len(asked), len(asked))
        return tuple(made)

    def candidate(self, name: str, method: str, group: Group) -> Candidate:
        """What `method` makes of the features of `group` (dense methods need none) on train, measured on dev."""
        made = self._fit(method, group, self.parts.train, self.train)
        auc = None if method == MANY_BLOCKS else held_auc(made, self._of(group, self.dev))
        shift = likelihood_shift(
            self.model, dict(made.vectors), self.parts.dev, kl=self.kl, base=self.plain, known=self.known
        )
        return Candidate(name, group, made, auc, shift)

    def again(self, one: Candidate, pool: Pool) -> Candidate:
        """A candidate fitted anew on train and dev together, once dev has nothing left to choose; its `dev` stays."""
        train, dev = self.parts.train, self.parts.dev
        both = replace(
            train, positive=(*train.positive, *dev.positive), negative=(*train.negative, *dev.negative)
        )  # fmt: skip
        acts = [] if one.fit.method == MANY_BLOCKS else collect(self.model, self.saes, both, pool)
        return replace(one, fit=self._fit(one.fit.method, one.features, both, acts))

    def _fit(self, method: str, group: Group, texts: ContrastSet, acts: Sequence[Activations]) -> Fit:
        if method == MANY_BLOCKS:
            return Fit(MANY_BLOCKS, spread(self.model, texts), {}, {})
        used = self._of(group, acts), self._of(group, self.saes), self._of(group, group)
        return fit(method, *used, paired=texts.paired)

    def _of(self, group: Group, each: Sequence[T]) -> list[T]:
        """Those of one value per site that belong to sites with features, or all for a group without any."""
        return [value for value, some in zip(each, group, strict=True) if some or not any(group)]

    def test(self, one: Candidate) -> Shift:
        """What a candidate does on the texts that fitted and chose nothing, at the dose that costs `kl` (`steer.dose`):
        measured with more care than candidates need to be compared, since it becomes the strength of the recipe.
        """
        vectors = dict(one.fit.vectors)
        try:
            dose = factor_for_kl(self.model, of_vectors(vectors), self.kl)
        except InputError:  # it costs less at any strength; then it stays at the nearest cost on neutral texts
            at = None
        else:
            at = (dose.factor, dose.kl)
        return likelihood_shift(
            self.model, vectors, self.parts.test, kl=self.kl, known=self.known, start=one.dev.strength, at=at
        )


def choose(candidates: Sequence[Candidate], name: str | None, method: str | None) -> Candidate | None:
    """The candidate of that name, or else the one with the largest shift on dev, of those made by `method` if given.

    Features were confirmed on dev; a candidate without any must do so by its shift, whose interval lies above 0, unless
    it was asked for. None when nothing is left.
    """
    if name is None and method is None:
        known = [one for one in candidates if any(one.features) or one.dev.low > 0]
    else:
        known = [one for one in candidates if one.name == name or (name is None and one.fit.method == method)]
    if not known and name is not None:
        raise InputError(f"There is no candidate {name!r}. Valid: {', '.join(one.name for one in candidates)}.")
    return max(known, key=lambda one: one.dev.shift, default=None)


def recipe_of(
    model: Model, saes: Sequence[SAE], contrast: ContrastSet, how: Settings,
    features: Sequence[Sequence[FeatureScore]], best: Candidate, test: Shift,
) -> Recipe:  # fmt: skip
    """The recipe that adds the candidate at the strength of `test`.

    One of plain vectors is read, in each SAE, with the feature that tells the sides apart best. Not with all that were
    found: some of them fire in any text, and so on many tokens whatever is done.
    """
    from trimtab.steer.recipe import Recipe
    from trimtab.steer.spec import About, Setting

    at = {sae.site: sae for sae in saes}
    edits: list[Recipe] = []
    for site, vector in best.fit.vectors.items():
        weights = best.fit.weights.get(site)
        if weights is None:
            edits.append(Recipe.vector(vector * test.strength, site))
        elif mine := _strengths(at[site], weights, test.strength):
            edits.append(Recipe.add(at[site], mine, unit="raw"))
    joined = sum(edits[1:], edits[0])
    seen = {sae.fingerprint: reader(some) for sae, some in zip(saes, features, strict=True) if some}
    about = About(
        model=model.name,
        model_fingerprint=model.fingerprint,
        contrast=contrast.digest,
        cluster={"name": best.name, "features": [list(some) for some in best.features]},
        reads={} if any(best.features) else {sae: {one.index: float(one.sign)} for sae, one in seen.items()},
        settings={k: Setting(value=v, given=k in how.model_fields_set) for k, v in how.model_dump(mode="json").items()},
        evidence={"test_shift": [test.shift, test.low, test.high], "kl": test.kl},
    )
    return Recipe(joined.edits, about)


def reader(features: Sequence[FeatureScore]) -> FeatureScore:
    """The feature that tells the sides apart best: one of the positive side if any, by AUC on train and dev."""

    def key(one: FeatureScore) -> tuple[bool, float, float]:
        return one.sign > 0, one.sign * (one.auc + one.held_auc - 1), one.sign * (one.effect + one.held_effect)

    return max(features, key=key)


def _strengths(sae: SAE, weights: Mapping[int, float], factor: float) -> dict[int, float]:
    """Lengths added along the decoder rows of some features, in residual units; those of weight 0 left out."""
    lengths = sae.rows(weights).norm(dim=-1).tolist()
    return {i: w * n * factor for (i, w), n in zip(weights.items(), lengths, strict=True) if w}
