"""The steering methods that are compared, each a function from a kit to a recipe, or to a rewritten prompt.

A recipe's own strength does not matter: each is brought to the same KL budgets. A method that finds nothing to steer
with (None) leaves the model as it is, and is reported so. Adding a method is adding an entry to `METHODS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from trimtab.errors import InputError
from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.kit import FIND_SHARES, Kit
from trimtab.find.contrast import collect
from trimtab.find.fit import METHODS as WEIGHTS
from trimtab.find.fit import fit, of_vectors
from trimtab.find.select import FeatureScore
from trimtab.find.spread import best_block, spread
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.spec import Unit

EXAMPLES = 3


@dataclass(frozen=True)
class Method:
    """One way to steer: `about` in a few words; exactly one of `recipe` and `prompt`, or neither for no steering.

    kind: `control` arms must do nothing, `prompt` arms are told what to write, the others steer.
    """

    about: str
    kind: str
    recipe: Callable[[Kit], Recipe | None] | None = None
    prompt: Callable[[Concept, str, int], str] | None = None


def one_feature(kit: Kit, key: Callable[[FeatureScore], float], site: int = 0) -> Recipe | None:
    """Add the decoder row of the feature of the positive side with the largest `key`."""
    features = [one for one in kit.features(site) if one.sign > 0]
    if not features:
        return None
    sae = kit.saes[site]
    return Recipe.add(sae, {max(features, key=key).index: 1.0}, _unit(sae))


def of(key: Callable[[FeatureScore], float]) -> Callable[[Kit], Recipe | None]:
    """`one_feature` of the first SAE by `key`."""
    return lambda kit: one_feature(kit, key)


def by_firing(one: FeatureScore) -> float:
    """How strongly a feature fires on positive rather than negative texts."""
    return one.effect


def by_output(one: FeatureScore) -> float:
    """Output score (Arad et al. 2505.20063)."""
    return one.output or 0.0


def by_gain(one: FeatureScore) -> float:
    """Likelihood gained for the concept's texts at a matched KL, to first order."""
    return one.gain or 0.0


def clamped(kit: Kit) -> Recipe | None:
    """Clamp the feature of the largest gain instead of adding it (Templeton et al. 2024)."""
    features = [one for one in kit.features() if one.sign > 0]
    if not features:
        return None
    return Recipe.clamp(kit.saes[0], {max(features, key=by_gain).index: 1.0}, _unit(kit.saes[0]))


def weighted(method: str) -> Callable[[Kit], Recipe | None]:
    """All selected features of the positive side with the weights of one of the methods of `find.fit`."""

    def make(kit: Kit) -> Recipe | None:
        features = [one.index for one in kit.features() if one.sign > 0][:32]
        if not features:
            return None
        try:
            return of_vectors(kit.weighted(method, features).vectors)
        except InputError:
            return None  # every feature got the weight 0

    return make


def dense(method: str) -> Callable[[Kit], Recipe | None]:
    """A vector of the residual stream without any SAE."""
    return lambda kit: of_vectors(kit.weighted(method, ()).vectors)


def largest_cluster(kit: Kit) -> Recipe | None:
    """The largest cluster of selected features, weighted by the difference of their mean activations."""
    clusters = [one for some in kit.finding.clusterings for one in some.clusters]
    if not clusters:
        return None
    try:
        return of_vectors(
            kit.weighted("mean_difference", max(clusters, key=lambda one: len(one.features)).features).vectors
        )
    except InputError:
        return None


def found(kit: Kit) -> Recipe | None:
    """What `trimtab find` recommends with its defaults."""
    return kit.finding.recipe


def found_features(kit: Kit) -> Recipe | None:
    """What `trimtab find` recommends when it is asked for features."""
    candidates = [one for one in kit.finding.candidates if one.fit.weights]
    return of_vectors(max(candidates, key=lambda one: one.dev.shift).fit.vectors) if candidates else None


def several_features(kit: Kit) -> Recipe | None:
    """The feature of the largest gain at every site, each as strong as the others in units of its own maximum."""
    recipes = [one for site in range(len(kit.saes)) if (one := one_feature(kit, by_gain, site)) is not None]
    return sum(recipes[1:], recipes[0]) if recipes else None


def several_means(kit: Kit) -> Recipe | None:
    """The mean difference at the site of every SAE."""
    return of_vectors({acts.site: acts.delta for acts in kit.acts})


def many_blocks(kit: Kit) -> Recipe | None:
    """Mean differences at the middle blocks, each at the same cost (`find.spread`)."""
    return of_vectors(spread(kit.model, kit.concept.texts))


def at_best_block(kit: Kit) -> Recipe | None:
    """The mean difference at the block that does most on a part of the half that fitted nothing."""
    return of_vectors(best_block(kit.model, kit.concept.texts, FIND_SHARES, kl=0.3))


def random_direction(kit: Kit) -> Recipe | None:
    """A random direction at the first SAE's site, as long as the mean difference."""
    seed = random.Random(f"direction {kit.seed} {kit.concept.name}").getrandbits(48)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(kit.model.d_model, generator=generator)
    acts = kit.acts[0]
    return of_vectors({acts.site: noise / noise.norm() * acts.delta.norm()})


def shuffled_mean(kit: Kit) -> Recipe | None:
    """The mean difference of the half with its labels shuffled."""
    acts = collect(kit.model, kit.saes[0], kit.shuffled)[0]
    return of_vectors(fit("caa", acts, kit.saes[0], paired=kit.shuffled.paired).vectors)


def shuffled_feature(kit: Kit) -> Recipe | None:
    """The feature of the largest gain when labels are shuffled."""
    features = [one for one in kit.shuffled_features if one.sign > 0]
    if not features:
        return None
    return Recipe.add(kit.saes[0], {max(features, key=by_gain).index: 1.0}, _unit(kit.saes[0]))


def asked_in_words(concept: Concept, opener: str, seed: int) -> str:
    """The concept asked for in words, for a model that continues texts."""
    return f"Here is a text {concept.phrase}.\n\n{opener}"


def asked_by_examples(concept: Concept, opener: str, seed: int) -> str:
    """A few of the concept's texts before the opener."""
    texts = concept.texts.positive
    chosen = random.Random(f"examples {seed} {concept.name}").sample(texts, min(EXAMPLES, len(texts)))
    return "\n\n".join([*chosen, opener])


def _unit(sae: SAE) -> Unit:
    """Multiples of the maximum activation, where that is known."""
    return "raw" if sae.max_act is None else "max_act"


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "unsteered": Method("the model as it is", "control"),
        "random": Method("a random direction", "control", random_direction),
        "shuffled mean difference": Method("mean difference, labels shuffled", "control", shuffled_mean),
        "shuffled feature": Method("feature by gain, labels shuffled", "control", shuffled_feature),
        "prompt in words": Method("the concept asked for in words", "prompt", prompt=asked_in_words),
        "prompt by examples": Method("three texts of the concept first", "prompt", prompt=asked_by_examples),
        "feature by firing": Method("decoder row of the feature that fires most", "feature", of(by_firing)),
        "feature by output": Method("... of the best output score", "feature", of(by_output)),
        "feature by gain": Method("... of the largest likelihood gain", "feature", of(by_gain)),
        "clamp by gain": Method("the same feature clamped, not added", "feature", clamped),
        "cluster": Method("the largest cluster of features", "features", largest_cluster),
        "find": Method("what `trimtab find` recommends", "found", found),
        "find, features": Method("... when asked for features", "features", found_features),
        **{
            f"weights {name}": Method(f"selected features, weights: {name}", "features", weighted(name))
            for name in WEIGHTS
        },
        "mean difference": Method("mean difference of the residuals (CAA)", "dense", dense("caa")),
        "pca": Method("first principal direction of the differences", "dense", dense("pca")),
        "probe": Method("direction of a logistic probe", "dense", dense("probe")),
        "features, several layers": Method("feature by gain at every site", "features", several_features),
        "mean difference, several layers": Method("mean difference at every site", "dense", several_means),
        "mean difference, best block": Method("mean difference where it does most", "dense", at_best_block),
        "mean difference, many blocks": Method("mean differences, balanced, no SAE", "dense", many_blocks),
    }
)  # fmt: skip


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """`names` as a tuple, all methods when there are none; `InputError` that lists the valid ones."""
    for name in names:
        if name not in METHODS:
            raise InputError(f"Unknown method {name!r}. Valid: {', '.join(METHODS)}.")
    if len(set(names)) < len(names):
        raise InputError(f"A method is given twice: {', '.join(names)}.")
    return tuple(names) or tuple(METHODS)
