"""From a contrast to a recipe: positions, features, clusters, weights, the choice among them, and held-out evidence.

The set is split once. Features are chosen on `train` and confirmed on `dev`; weights are fitted on `train`; which
cluster to steer with is chosen by its measured effect on `dev`; `test` is looked at only to report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from trimtab.errors import InputError
from trimtab.find.cluster import METHODS as CLUSTERERS
from trimtab.find.cluster import Clustering, Similarity, cluster
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.effect import Shift, likelihood_shift, text_likelihoods
from trimtab.find.fit import DENSE, METHODS, Fit, fit, held_auc
from trimtab.find.pairs import ContrastSet, Splits
from trimtab.find.positions import Align, Positions, find_positions
from trimtab.find.probe import probe, separating
from trimtab.find.select import SHARES, FeatureScore, Filters, Order, ordered, score, with_output
from trimtab.sae.sae import SAE
from trimtab.spec import Spec

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe


class Settings(Spec):
    """How to look. `method` weighs the features of a cluster; `choice` names a candidate, None takes the best on dev.

    limit: features kept per site. candidates: how many clusters are tried, the largest first. kl: cost at which effects
    are compared and which the recipe's strength is set to, in nats per neutral token. align None: no positions.
    """

    pool: Pool = "mean"
    align: Align | None = "right"
    order: Order = "both"
    limit: Annotated[int, Field(ge=1)] = 32
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.05
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.1
    similarity: Similarity = "joint"
    clusterer: str = "agglomerative"
    method: str = "mean_difference"
    candidates: Annotated[int, Field(ge=0)] = 3
    choice: str | None = None
    kl: Annotated[float, Field(gt=0)] = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """One way to steer: a name (`best feature`, `all features`, `cluster 1`, ...), features of each site, the fit, and
    what it does on dev at the matched cost.
    """

    name: str
    features: tuple[tuple[int, ...], ...]
    fit: Fit
    auc: float
    dev: Shift


@dataclass(frozen=True, eq=False)
class Finding:
    """Everything that was found. No features: no candidates and no recipe, since the contrast is not in the SAE.

    chosen: the candidate that the recipe carries out; test: its shift on texts that chose nothing. reading: at most
    `limit` features that together tell the sides apart (see `separating`; of the first site with features); auc,
    dense_auc: how well a logistic probe on those, and on the whole residual, separates the test texts.
    """

    contrast: ContrastSet
    sizes: tuple[int, int, int]
    settings: Settings
    positions: tuple[Positions, ...]
    features: tuple[tuple[FeatureScore, ...], ...]
    clusterings: tuple[Clustering, ...]
    candidates: tuple[Candidate, ...] = ()
    chosen: Candidate | None = None
    test: Shift | None = None
    reading: tuple[int, ...] = ()
    auc: float | None = None
    dense_auc: float | None = None
    recipe: Recipe | None = None


def find(model: Model, saes: SAE | Sequence[SAE], contrast: ContrastSet, settings: Settings | None = None) -> Finding:
    """Find what `contrast` switches on in one SAE, or in several of different sites, and make a recipe of it.

    Raises `InputError` for settings that name no method, and for a set too small to split; `MismatchError` when an SAE
    does not fit the model. Finding nothing is not an error.
    """
    from trimtab.sae.load import check_fits

    how, several = settings or Settings(), [saes] if isinstance(saes, SAE) else list(saes)
    _check(how, several)
    for sae in several:
        check_fits(sae, model)
    parts = contrast.split(SHARES, how.seed)
    train, dev, test = (collect(model, several, part, how.pool) for part in parts)
    positions = () if how.align is None else tuple(
        find_positions(model, parts.train, sae.site, how.align, seed=how.seed) for sae in several
    )  # fmt: skip
    features = tuple(_features(model, sae, a, b, parts.dev, how) for sae, a, b in zip(several, train, dev, strict=True))
    clusterings = tuple(
        cluster(sae, [one.index for one in found], acts, similarity=how.similarity, method=how.clusterer, model=model)
        for sae, found, acts in zip(several, features, train, strict=True)
    )
    sizes = (len(parts.train), len(parts.dev), len(parts.test))
    base = Finding(contrast, sizes, how, positions, features, clusterings)
    if not any(features):
        return base
    candidates = _candidates(model, several, train, dev, parts, base)
    best = _choose(candidates, how.choice)
    final = likelihood_shift(model, dict(best.fit.vectors), parts.test, kl=how.kl)
    first = next(i for i, found in enumerate(best.features) if found)
    reading = tuple(separating(train[first], how.limit))
    return Finding(
        contrast, sizes, how, positions, features, clusterings, candidates, best, final,
        reading=reading, auc=probe(train[first], test[first], reading).auc,
        dense_auc=probe(train[first], test[first]).auc, recipe=recipe_of(model, several, contrast, how, best, final),
    )  # fmt: skip


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


def _check(how: Settings, saes: Sequence[SAE]) -> None:
    if how.method not in {*METHODS, *DENSE}:
        raise InputError(f"Unknown method {how.method!r}. Valid: {', '.join([*METHODS, *DENSE])}.")
    if how.clusterer not in CLUSTERERS:
        raise InputError(f"Unknown clustering method {how.clusterer!r}. Valid: {', '.join(CLUSTERERS)}.")
    sites = [sae.site for sae in saes]
    if not sites or len(set(sites)) < len(sites):
        raise InputError("Give one SAE, or several of different sites.")


def _features(
    model: Model, sae: SAE, train: Activations, dev: Activations, texts: ContrastSet, how: Settings
) -> tuple[FeatureScore, ...]:
    rule = Filters(fdr=how.fdr, max_density=how.max_density, min_coverage=how.min_coverage)
    found = score(train, dev, rule)[: max(4 * how.limit, 64)]
    return tuple(ordered(with_output(model, sae, found, texts), how.order)[: how.limit])


def _candidates(
    model: Model, saes: Sequence[SAE], train: list[Activations], dev: list[Activations], parts: Splits, found: Finding
) -> tuple[Candidate, ...]:
    """The best feature, all features of all sites, and the largest clusters of each site, each fitted and measured."""
    how, empty = found.settings, [()] * len(saes)  # type: tuple[Settings, list[tuple[int, ...]]]
    groups: dict[str, list[tuple[int, ...]]] = {}
    site = max(range(len(saes)), key=lambda i: max((one.gain or 0.0 for one in found.features[i]), default=-1.0))
    groups["best feature"] = [*empty[:site], (found.features[site][0].index,), *empty[site + 1 :]]
    groups["all features"] = [tuple(one.index for one in some) for some in found.features]
    clusters = [(i, one) for i, some in enumerate(found.clusterings) for one in some.clusters]
    clusters.sort(key=lambda pair: -len(pair[1].features))
    for number, (i, one) in enumerate(clusters[: how.candidates], start=1):
        groups[f"cluster {number}"] = [*empty[:i], one.features, *empty[i + 1 :]]
    likelihoods = text_likelihoods(model, parts.dev)
    made: list[Candidate] = []
    for name, features in groups.items():
        if any(tuple(features) == one.features for one in made):
            continue
        used = [i for i, some in enumerate(features) if some]
        fitted = fit(
            how.method, [train[i] for i in used], [saes[i] for i in used], [features[i] for i in used],
            paired=parts.train.paired,
        )  # fmt: skip
        shift = likelihood_shift(model, dict(fitted.vectors), parts.dev, kl=how.kl, base=likelihoods)
        made.append(Candidate(name, tuple(features), fitted, held_auc(fitted, [dev[i] for i in used]), shift))
    return tuple(made)


def _choose(candidates: Sequence[Candidate], name: str | None) -> Candidate:
    if name is None:
        return max(candidates, key=lambda one: one.dev.shift)
    for one in candidates:
        if one.name == name:
            return one
    raise InputError(f"There is no candidate {name!r}. Valid: {', '.join(one.name for one in candidates)}.")
