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

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.find.find import Settings
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

BASELINE = "caa"
Group = tuple[tuple[int, ...], ...]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to steer: a name (`best feature`, `all features`, `cluster 1`, ...), features of each site, the fit, and
    what it does on dev at the matched cost. Dense fits have no features, and the name of their method.
    """

    name: str
    features: Group
    fit: Fit
    auc: float
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
        return self._measured(name, group, made, [self.dev[i] for i in used])

    def dense(self, method: str) -> Candidate:
        """The candidate of a method that needs no features."""
        made = fit(method, self.train, self.saes, [() for _ in self.saes], paired=self.parts.train.paired)
        return self._measured(method, ((),) * len(self.saes), made, self.dev)

    def _measured(self, name: str, group: Group, made: Fit, dev: list[Activations]) -> Candidate:
        vectors = dict(made.vectors)
        shift = likelihood_shift(self.model, vectors, self.parts.dev, kl=self.kl, base=self.plain, known=self.known)
        return Candidate(name, group, made, held_auc(made, dev), shift)

    def all(self, groups: dict[str, Group], method: str, progress: Progress) -> tuple[Candidate, ...]:
        """A candidate for each group (for a dense method: one), and last the baseline without features."""
        dense = [BASELINE] if method not in DENSE else list(dict.fromkeys([method, BASELINE]))
        names = [*(groups if method not in DENSE else ()), *dense]
        made: list[Candidate] = []
        for name in names:
            progress("measuring", len(made), len(names))
            made.append(self.dense(name) if name in dense else self.features(name, method, groups[name]))
        progress("measuring", len(names), len(names))
        return tuple(made)

    def test(self, one: Candidate) -> Shift:
        """What a candidate does on the texts that chose nothing, at its strength."""
        return likelihood_shift(
            self.model, dict(one.fit.vectors), self.parts.test, kl=self.kl, known=self.known, start=one.dev.strength
        )


def choose(candidates: Sequence[Candidate], name: str | None, method: str) -> Candidate:
    """The candidate of that name; None: of those made by `method`, the one with the largest shift on dev."""
    if name is None:
        return max((one for one in candidates if one.fit.method == method), key=lambda one: one.dev.shift)
    for one in candidates:
        if one.name == name:
            return one
    raise InputError(f"There is no candidate {name!r}. Valid: {', '.join(one.name for one in candidates)}.")


def recipe_of(
    model: Model, saes: Sequence[SAE], contrast: ContrastSet, how: Settings, best: Candidate, test: Shift
) -> Recipe:
    """The recipe that adds the candidate's features at the strength whose cost was matched on dev."""
    from trimtab.steer.recipe import Recipe
    from trimtab.steer.spec import About, Setting

    edits: list[Recipe] = []
    for sae in saes:
        weights = best.fit.weights.get(sae.site)
        if weights:
            lengths = dict(zip(weights, sae.rows(weights).norm(dim=-1).tolist(), strict=True))
            strengths = {i: w * lengths[i] * best.dev.strength for i, w in weights.items() if w * lengths[i]}
            edits += [Recipe.add(sae, strengths, unit="raw")] if strengths else []
        elif sae.site in best.fit.vectors:
            edits.append(Recipe.vector(best.fit.vectors[sae.site] * best.dev.strength, sae.site))
    joined = sum(edits[1:], edits[0])
    about = About(
        model=model.name,
        model_fingerprint=model.fingerprint,
        contrast=contrast.digest,
        cluster={"name": best.name, "features": [list(some) for some in best.features]},
        settings={k: Setting(value=v, given=k in how.model_fields_set) for k, v in how.model_dump(mode="json").items()},
        evidence={"test_shift": [test.shift, test.low, test.high], "kl": test.kl},
    )
    return Recipe(joined.edits, about)
