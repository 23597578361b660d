"""Ways to steer with what was found, each fitted on train and measured on dev at one cost; the recipe of the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.find.cluster import Clustering
from trimtab.find.contrast import Activations
from trimtab.find.effect import Shift, likelihood_shift, neutral, text_likelihoods
from trimtab.find.fit import DENSE, Fit, fit, held_auc
from trimtab.find.pairs import ContrastSet, Splits
from trimtab.find.select import FeatureScore
from trimtab.find.spread import spread

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.find.find import Settings
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

BASELINE = "caa"
MANY_BLOCKS = "many blocks"
Group = tuple[tuple[int, ...], ...]
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

    def features(self, name: str, method: str, group: Group) -> Candidate:
        """The candidate that steers with the features of `group`, weighed by `method`."""
        used = [i for i, some in enumerate(group) if some]
        made = fit(
            method, [self.train[i] for i in used], [self.saes[i] for i in used], [group[i] for i in used],
            paired=self.parts.train.paired,
        )  # fmt: skip
        return self._measured(name, group, made, held_auc(made, [self.dev[i] for i in used]))

    def dense(self, method: str) -> Candidate:
        """The candidate of a method that needs no features."""
        made = fit(method, self.train, self.saes, [() for _ in self.saes], paired=self.parts.train.paired)
        return self._measured(method, ((),) * len(self.saes), made, held_auc(made, self.dev))

    def many_blocks(self) -> Candidate:
        """The candidate that adds the mean difference at many blocks, each at the same cost."""
        made = Fit(MANY_BLOCKS, spread(self.model, self.parts.train), {}, {})
        return self._measured(MANY_BLOCKS, ((),) * len(self.saes), made, None)

    def _measured(self, name: str, group: Group, made: Fit, auc: float | None) -> Candidate:
        vectors = dict(made.vectors)
        shift = likelihood_shift(self.model, vectors, self.parts.dev, kl=self.kl, base=self.plain, known=self.known)
        return Candidate(name, group, made, auc, shift)

    def all(self, groups: dict[str, Group], method: str, progress: Progress) -> tuple[Candidate, ...]:
        """A candidate for each group (for a dense method: one), the many blocks, and last the baseline."""
        asked = groups if method not in DENSE else {method} - {BASELINE}
        names = [*asked, MANY_BLOCKS, BASELINE]
        made: list[Candidate] = []
        for number, name in enumerate(names):
            progress("measuring", number, len(names))
            if name == MANY_BLOCKS:
                made.append(self.many_blocks())
            else:
                made.append(self.dense(name) if name in DENSE else self.features(name, method, groups[name]))
        progress("measuring", len(names), len(names))
        return tuple(made)

    def test(self, one: Candidate) -> Shift:
        """What a candidate does on the texts that chose nothing, at its strength."""
        return likelihood_shift(
            self.model, dict(one.fit.vectors), self.parts.test, kl=self.kl, known=self.known, start=one.dev.strength
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
    model: Model, saes: Sequence[SAE], contrast: ContrastSet, how: Settings, candidates: Sequence[Candidate],
    best: Candidate, test: Shift,
) -> Recipe:  # fmt: skip
    """The recipe that adds the candidate at the strength whose cost was matched on dev.

    One of plain vectors is read with the features that were found, weighed as in the candidate of all of them.
    """
    from trimtab.steer.recipe import Recipe
    from trimtab.steer.spec import About, Setting

    strengths = _strengths(saes, best)
    at = {sae.site: sae for sae in saes}
    edits: list[Recipe] = []
    for site, vector in best.fit.vectors.items():
        if site not in best.fit.weights:
            edits.append(Recipe.vector(vector * best.dev.strength, site))
        elif mine := strengths[at[site].fingerprint]:
            edits.append(Recipe.add(at[site], mine, unit="raw"))
    joined = sum(edits[1:], edits[0])
    largest = max(candidates, key=lambda one: sum(map(len, one.features)))
    about = About(
        model=model.name,
        model_fingerprint=model.fingerprint,
        contrast=contrast.digest,
        cluster={"name": best.name, "features": [list(some) for some in best.features]},
        reads={} if any(best.features) else _strengths(saes, largest),
        settings={k: Setting(value=v, given=k in how.model_fields_set) for k, v in how.model_dump(mode="json").items()},
        evidence={"test_shift": [test.shift, test.low, test.high], "kl": test.kl},
    )
    return Recipe(joined.edits, about)


def _strengths(saes: Sequence[SAE], one: Candidate) -> dict[str, dict[int, float]]:
    """Lengths added along the decoder rows of a candidate's features, in residual units, by fingerprint of the SAE."""
    found: dict[str, dict[int, float]] = {}
    for sae in saes:
        if weights := one.fit.weights.get(sae.site):
            lengths = sae.rows(weights).norm(dim=-1).tolist()
            added = {i: w * n * one.dev.strength for (i, w), n in zip(weights.items(), lengths, strict=True)}
            found[sae.fingerprint] = {i: strength for i, strength in added.items() if strength}
    return found
