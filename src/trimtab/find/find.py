"""From a contrast to a recipe: positions, features, clusters, weights, the choice among them, and held-out evidence.

The set is split once. Features are chosen on `train` and confirmed on `dev`; weights are fitted on `train`; which
candidate to steer with is chosen by its measured effect on `dev`, and fitted anew on both; `test` is looked at only to
report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from trimtab.errors import InputError
from trimtab.find.candidates import Candidate, Measure, Progress, choose, groups_of, recipe_of
from trimtab.find.cluster import Clustering, cluster
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.effect import Shift
from trimtab.find.examples import Example, examples
from trimtab.find.fit import DENSE, METHODS
from trimtab.find.grouping import METHODS as CLUSTERERS
from trimtab.find.map import Place, places
from trimtab.find.pairs import ContrastSet
from trimtab.find.positions import Align, Positions, find_positions
from trimtab.find.probe import probe, separating
from trimtab.find.select import SHARES, FeatureScore, Filters, Order, ordered, score, with_density, with_output
from trimtab.find.similarity import Similarity
from trimtab.sae.sae import SAE
from trimtab.spec import Spec

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe


class Settings(Spec):
    """How to look. `method` weighs the features of a cluster; `choice` names a candidate. None takes the best on dev:
    of all candidates, or of those of `method` where that is given.

    limit: features kept per site. fdr: of the look at train alone, on which dev must then agree (one-sided p below
    0.05), so few false ones are left: labels shuffled within pairs gave none in 60 draws of three shipped sets.
    candidates: how many clusters are tried, the largest first. kl: cost, in nats per token, at which effects are
    compared (on neutral sentences) and that the recipe's strength is the dose for (`steer.dose`). align None: no
    positions. shares: of train, dev and test.
    """

    pool: Pool = "mean"
    align: Align | None = "right"
    order: Order = "both"
    limit: Annotated[int, Field(ge=1)] = 32
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.5
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.1
    min_coverage: Annotated[float, Field(ge=0, le=1)] = 0.1
    similarity: Similarity = "joint"
    clusterer: str = "agglomerative"
    method: str = "mean_difference"
    candidates: Annotated[int, Field(ge=0)] = 3
    choice: str | None = None
    kl: Annotated[float, Field(gt=0)] = 0.3
    seed: int = 0
    shares: tuple[float, float, float] = SHARES


@dataclass(frozen=True, eq=False)
class Finding:
    """Everything that was found. No candidates and no recipe where nothing moves the texts that choose.

    features, clusterings, examples, places: of each SAE (where its features fire in the training texts, and where they
    lie on a map). candidates: ways to steer, the last two without features. chosen: the best of them, fitted again on
    train and dev, which the recipe carries out; test, baseline_test: its shift, and that of the baseline fitted again,
    on the other texts. reading: at most `limit` features that together tell the sides apart (see `separating`; of the
    first site with features); auc, dense_auc: how well a logistic probe on those, and on the whole residual, separates
    the test texts.
    """

    contrast: ContrastSet
    sizes: tuple[int, int, int]
    settings: Settings
    model: str
    saes: tuple[str, ...]
    positions: tuple[Positions, ...]
    features: tuple[tuple[FeatureScore, ...], ...]
    clusterings: tuple[Clustering, ...]
    examples: tuple[dict[int, tuple[Example, ...]], ...]
    places: tuple[dict[int, Place], ...]
    candidates: tuple[Candidate, ...] = ()
    chosen: Candidate | None = None
    test: Shift | None = None
    baseline_test: Shift | None = None
    reading: tuple[int, ...] = ()
    auc: float | None = None
    dense_auc: float | None = None
    recipe: Recipe | None = None


def find(
    model: Model, saes: SAE | Sequence[SAE], contrast: ContrastSet, settings: Settings | None = None, *,
    progress: Progress = lambda stage, done, total: None,
) -> Finding:  # fmt: skip
    """Find what `contrast` switches on in one SAE, or in several of different sites, and make a recipe of it.

    Raises `InputError` for settings that name no method, and for a set too small to split; `MismatchError` when an SAE
    does not fit the model. Finding nothing is not an error.
    """
    from trimtab.sae.load import check_fits

    how, several = settings or Settings(), [saes] if isinstance(saes, SAE) else list(saes)
    _check(how, several)
    for sae in several:
        check_fits(sae, model)
    parts = contrast.split(how.shares, how.seed)
    steps = 4 + (how.align is not None)
    progress("reading", 0, steps)
    train, dev, test = (collect(model, several, part, how.pool) for part in parts)
    progress("reading", 1, steps)
    positions = () if how.align is None else tuple(
        find_positions(model, parts.train, sae.site, how.align, seed=how.seed) for sae in several
    )  # fmt: skip
    progress("reading", steps - 3, steps)
    features = tuple(_features(model, sae, a, b, parts.dev, how) for sae, a, b in zip(several, train, dev, strict=True))
    progress("reading", steps - 2, steps)
    clusterings = tuple(
        cluster(sae, [one.index for one in found], acts, similarity=how.similarity, method=how.clusterer, model=model)
        for sae, found, acts in zip(several, features, train, strict=True)
    )
    found = Finding(
        contrast, (len(parts.train), len(parts.dev), len(parts.test)), how, model.name,
        tuple(sae.name for sae in several), positions, features, clusterings,
        tuple(
            examples(model, one, [f.index for f in some], parts.train)
            for one, some in zip(several, features, strict=True)
        ),
        tuple(places(one, sae, acts) for one, sae, acts in zip(clusterings, several, train, strict=True)),
    )  # fmt: skip
    progress("reading", steps, steps)
    groups = groups_of(features, clusterings, how.candidates)
    measure = Measure(model, several, train, dev, parts, how.kl)
    candidates = measure.all(groups, how.method, progress)
    given = how.method if "method" in how.model_fields_set else None
    chosen, base = choose(candidates, how.choice, given), candidates[-1]
    if chosen is None:
        return found
    progress("checking", 0, 2)
    best = measure.again(chosen, how.pool)
    final = measure.test(best)
    progress("checking", 1, 2)
    baseline = final if chosen is base else measure.test(measure.again(base, how.pool))
    progress("checking", 2, 2)
    first = next((i for i, some in enumerate(best.features) if some), 0)
    reading = tuple(separating(train[first], how.limit))
    return replace(
        found, candidates=candidates, chosen=best, test=final, baseline_test=baseline,
        reading=reading, auc=probe(train[first], test[first], reading).auc if reading else None,
        dense_auc=probe(train[first], test[first]).auc,
        recipe=recipe_of(model, several, contrast, how, features, best, final),
    )  # fmt: skip


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
    found = score(with_density(train, sae), dev, rule)[: max(4 * how.limit, 64)]
    return tuple(ordered(with_output(model, sae, found, texts), how.order)[: how.limit])
