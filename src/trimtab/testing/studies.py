"""Simulated studies whose truth is known: how often intervals cover it, and how often verdicts are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.special import stdtrit

from trimtab.evidence.arms import control_recipe, generator_of
from trimtab.evidence.contrast_arms import read_contrast, shuffled_selection
from trimtab.evidence.plan import Job
from trimtab.evidence.stats import MIN_CLUSTERS, Floats, interval
from trimtab.evidence.verify_many import verify_many
from trimtab.find.pairs import ContrastSet
from trimtab.spec import Sampling
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld, planted_world

PROMPTS = (
    "the cat saw", "a dog found", "every child", "the house", "a tree was",
    "the stone", "a child liked", "every bridge", "the dog took", "a cat",
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """How the scores of a text come about: 0, or a gamma-distributed size, as the firing rate of a feature does.

    A text of prompt i fires with probability sigmoid(`level` + `spread` * z_i), z_i normal; then its score is a gamma
    number of mean `size` and shape `shape`, times exp(`swing` * z'_i - swing^2 / 2). `level` None: normal scores of
    mean 1 instead, with standard deviation `spread` between prompts and 1 within.
    """

    level: float | None
    spread: float
    size: float = 0.05
    shape: float = 1.0
    swing: float = 0.0

    @property
    def mean(self) -> float:
        """The expected score over all prompts."""
        if self.level is None:
            return 1.0
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        return self.size * float((weights * _sigmoid(self.level + self.spread * nodes)).sum() / weights.sum())

    def draw(self, prompts: int, samples: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Scores [prompts, samples], and what each prompt's scores are on average [prompts]."""
        z = rng.normal(size=(2, prompts))
        if self.level is None:
            own = 1 + self.spread * z[0]
            return own[:, None] + rng.normal(size=(prompts, samples)), own
        share = _sigmoid(self.level + self.spread * z[0])
        size = self.size * np.exp(self.swing * z[1] - self.swing**2 / 2)
        fires = rng.random((prompts, samples)) < share[:, None]
        amount = rng.gamma(self.shape, 1 / self.shape, size=(prompts, samples)) * size[:, None]
        return fires * amount, share * size


SCORES: Mapping[str, Scores] = MappingProxyType(
    {
        "normal": Scores(None, 1.0),
        "fires in 4 texts of 5": Scores(1.6, 0.8, size=0.15, shape=1.4, swing=0.2),
        "fires in 1 text of 2": Scores(0.0, 0.7, size=0.035, shape=4.0),
        "fires in 1 text of 3, strongly skewed": Scores(-0.8, 0.7, shape=1.0, swing=0.4),
        "fires in 1 text of 8": Scores(-2.3, 0.9, shape=2.6),
    }
)
"""The second, third and last are like the firing rates of two features on Gemma-3-270M, steered (4 in 5, 1 in 2) and
unsteered (1 in 8), over 10 prompts with 8 samples; the fourth is harder than any that was seen there."""


@dataclass(frozen=True)
class Coverage:
    """Of `runs` simulated studies the share whose interval held the truth, and whose truth lay below and above it.

    `thin`: share of the studies whose interval said that it cannot be trusted; `trusted`: coverage of the others (None
    when there are none). `student`: what Student's t over the same units covers. `width`: median width over the mean.
    """

    runs: int
    covered: float
    below: float
    above: float
    thin: float
    trusted: float | None
    student: float
    width: float


def coverage(scores: Scores, prompts: int, samples: int, *, runs: int, draws: int = 1000, seed: int = 0) -> Coverage:
    """How often the 95 % interval of `trimtab.evidence.stats` holds the true mean.

    The truth is the mean over all prompts there could be, or over those given where there are fewer than
    `MIN_CLUSTERS`, since then the interval claims no more.
    """
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(prompts), samples).tolist()
    student = np.zeros(runs, dtype=bool)
    low, high, truth, thin = np.empty(runs), np.empty(runs), np.full(runs, scores.mean), np.zeros(runs, dtype=bool)
    for run in range(runs):
        values, own = scores.draw(prompts, samples, rng)
        if prompts < MIN_CLUSTERS:
            truth[run] = own.mean()
        found = interval(values.ravel(), clusters, draws=draws, seed=run)
        low[run], high[run] = found.low, found.high
        thin[run] = found.thin
        student[run] = _in_students_t(values if prompts < MIN_CLUSTERS else values.mean(1)[None], truth[run])
    hit = (low <= truth) & (truth <= high)
    return Coverage(
        runs=runs,
        covered=float(hit.mean()),
        below=float((truth < low).mean()),
        above=float((truth > high).mean()),
        thin=float(thin.mean()),
        trusted=float(hit[~thin].mean()) if not thin.all() else None,
        student=float(student.mean()),
        width=float(np.median(high - low) / scores.mean),
    )


def planted_verdicts(seed: int, samples: int = 4, max_new_tokens: int = 16) -> dict[str, str]:
    """The verdicts on four recipes in the planted world of this seed, all asked about one concept's feature.

    "writer": the feature that makes the model say the concept's words. "reader": one that only fires on them (its own
    firing is asked about). "random": a random direction of the writer's length. "shuffled": the feature that the
    concept's texts give when their labels are shuffled.
    """
    world = planted_world(seed)
    concept = sorted(world.concepts)[seed % len(world.concepts)]
    writer, reader = world.concepts[concept], world.readers[concept]
    recipe = Recipe.add(world.sae, {writer: 1.0})
    read = {writer: 1.0}
    jobs = {
        "writer": Job(recipe),
        "reader": Job(Recipe.add(world.sae, {reader: 1.0})),
        "random": Job(_random(world, recipe, seed), read),
        "shuffled": Job(_shuffled(world, concept, recipe, seed), read),
    }
    found = verify_many(
        world.model, world.sae, jobs, PROMPTS, samples=samples, sampling=Sampling(max_new_tokens=max_new_tokens),
        seed=seed, controls=("random",),
    )  # fmt: skip
    return {name: evidence.verdict for name, evidence in zip(jobs, found, strict=True)}


def verified(verdict: str) -> bool:
    """Whether a verdict says that the recipe does what it should."""
    return verdict.startswith("works")


def _random(world: PlantedWorld, recipe: Recipe, seed: int) -> Recipe:

    return control_recipe("random", recipe, world.sae, seed + 1, 0, 0)


def _shuffled(world: PlantedWorld, concept: str, recipe: Recipe, seed: int) -> Recipe:

    contrast = ContrastSet.of(world.texts(concept, 20, seed), world.texts(None, 20, seed), name=concept, paired=False)
    acts = read_contrast(world.model, world.sae, contrast)
    return shuffled_selection(recipe, world.sae, acts, contrast.paired, generator_of("shuffled", seed, 0, 0))


def _in_students_t(strata: Floats, truth: float) -> bool:
    """Whether the 95 % interval by Student's t of the mean of the strata [strata, values] holds the truth."""
    h, n = strata.shape
    error = float(np.sqrt(strata.var(1, ddof=1).sum() / n)) / h
    return bool(abs(strata.mean() - truth) <= stdtrit(h * (n - 1), 0.975) * error)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)), dtype=np.float64)
