"""What every method may use for one concept, worked out once: activations, features, their gains, a finding."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from trimtab.evidence.benchmark.concepts import Concept
from trimtab.find.contrast import Activations, collect
from trimtab.find.find import Finding, Settings, find
from trimtab.find.fit import Fit, fit
from trimtab.find.gain import Curvature, curvature
from trimtab.find.pairs import ContrastSet
from trimtab.find.select import FeatureScore, Filters, ordered, score, with_output
from trimtab.sae.sae import SAE
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe

CANDIDATES = 96
FIND_SHARES = (0.6, 0.3, 0.1)


@dataclass(frozen=True, eq=False)
class Kit:
    """One concept's half for methods, read by the model. `saes`: the first is the one of all single-site methods.

    What is expensive is made when it is first asked for; `curves` keeps the curvature of each site, which is the same
    for all concepts. `seed` decides random directions and the shuffling of labels. `recipes`: what methods made of it.
    """

    model: Model
    saes: tuple[SAE, ...]
    concept: Concept
    curves: dict[Site, Curvature]
    seed: int = 0
    recipes: dict[str, Recipe | None] = field(default_factory=dict)

    @cached_property
    def acts(self) -> list[Activations]:
        """Activations of the whole half at the site of each SAE, which weights and vectors are fitted on."""
        return collect(self.model, self.saes, self.concept.texts)

    @cache  # noqa: B019 (a kit lives as long as its concept is worked on)
    def features(self, site: int = 0) -> list[FeatureScore]:
        """Features of one of the SAEs that the concept switches on, with all scores, chosen on the whole half.

        No part of it confirms them: what they are worth is measured on texts that they make the model write.
        """
        return self._scored(self.saes[site], self.acts[site], self.concept.texts, Filters())

    @cached_property
    def finding(self) -> Finding:
        """What `trimtab find` finds in the half with its defaults, but for a small test part that nothing needs."""
        return find(self.model, self.saes[0], self.concept.texts, Settings(align=None, shares=FIND_SHARES))

    @cached_property
    def shuffled(self) -> ContrastSet:
        """The half with the two texts of every other pair, drawn at random, exchanged; free lists are dealt anew.

        Exactly half, since otherwise the concept stays in what the sides differ in.
        """
        draw = random.Random(f"shuffle {self.seed} {self.concept.name}")
        texts = self.concept.texts
        if texts.paired:
            n = len(texts)
            turned = set(draw.sample(range(n), n // 2))
            pairs = list(zip(texts.positive, texts.negative, strict=True))
            pairs = [pair[::-1] if i in turned else pair for i, pair in enumerate(pairs)]
            return replace(texts, positive=tuple(p for p, _ in pairs), negative=tuple(n for _, n in pairs))
        sides = [draw.sample(side, len(side)) for side in (texts.positive, texts.negative)]
        dealt = [(*sides[0][i::2], *sides[1][i::2]) for i in (0, 1)]
        return replace(texts, positive=dealt[0], negative=dealt[1])

    @cached_property
    def shuffled_features(self) -> list[FeatureScore]:
        """What selection makes of shuffled labels, significant or not, for the first SAE."""
        acts = collect(self.model, self.saes[0], self.shuffled)[0]
        return self._scored(self.saes[0], acts, self.shuffled, Filters(fdr=1.0))

    def weighted(self, method: str, features: Sequence[int]) -> Fit:
        """Weights or a vector by one of the methods of `find.fit`, at the first SAE's site."""
        texts = self.concept.texts
        return fit(method, self.acts[0], self.saes[0], features, paired=texts.paired)

    def _scored(self, sae: SAE, acts: Activations, texts: ContrastSet, rule: Filters) -> list[FeatureScore]:
        if sae.site not in self.curves:
            self.curves[sae.site] = curvature(self.model, sae.site)
        known = acts if sae.density is None else replace(acts, density=sae.density.cpu())
        some = score(known, known, rule)[:CANDIDATES]
        return ordered(with_output(self.model, sae, some, texts, self.curves[sae.site]), "both")
