"""What each arm of a verification writes: which recipe at which prompt and sample, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from trimtab.errors import InputError, UnsupportedError
from trimtab.evidence.arms import CONTROLS, control_recipe, generator_of
from trimtab.evidence.contrast_arms import (
    check_contrast,
    mean_difference,
    read_contrast,
    read_means,
    shuffled_selection,
)
from trimtab.evidence.match import at_same_cost, cost_of, cost_of_words, same_cost
from trimtab.evidence.values import RECIPE, UNSTEERED
from trimtab.find.pairs import ContrastSet
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.find.contrast import Activations
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.spec import Site

    Read = tuple[Activations, Mapping[Site, Tensor]]
    """The contrast set as the SAE reads it, and its texts' mean residuals where the recipe adds plain vectors."""

DRAWS_PER_PROMPT = 2
"""How many directions, features or shuffles a control that draws at random has for each prompt. They are not shared
between prompts, so that intervals over prompts speak for other draws as well."""

LABELS: Mapping[str, str] = MappingProxyType(
    {
        UNSTEERED: "unsteered",
        RECIPE: "steered",
        "random": "random direction",
        "sign-flipped": "sign flipped",
        "matched-feature": "random feature of like density",
        "shuffled": "selected with shuffled labels",
        "mean-difference": "dense mean difference",
        "prompt": "asked for in words",
    }
)

NULLS = ("random", "matched-feature", "shuffled")
"""Controls that should do nothing for the target: a recipe that is not clearly better than each has no effect."""

DRAWN = NULLS
NEED_CONTRAST = ("shuffled", "mean-difference")
ALL = tuple(LABELS)[2:]


@dataclass(frozen=True, eq=False)
class Job:
    """One recipe to verify. `read`: feature -> weight, when it is not the recipe's own features that are to be read.

    `contrast`: the set that the recipe was found with, for the arms that need it. `ask`: words that ask for the
    concept, put before each prompt in the arm "prompt"; None makes them of the contrast set's name.
    """

    recipe: Recipe
    read: Mapping[int, float] | None = None
    contrast: ContrastSet | None = None
    ask: str | None = None

    @property
    def words(self) -> str | None:
        """What the arm "prompt" puts before each prompt; None when nothing is known to ask for."""
        if self.ask is None and self.contrast is None:
            return None
        return self.ask if self.ask is not None else f"The following text is about {self.contrast.name}."  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class Arm:
    """One arm: `recipes[prompt]` are its draws for that prompt, of which sample s takes number s modulo their count.

    `kl`: mean cost in nats per token; `reached`: whether it is the recipe's (None: not comparable). `words` stand
    before each prompt. `factor`: what the draws' strengths were multiplied by to get there, their median.
    """

    name: str
    recipes: tuple[tuple[Recipe | None, ...], ...]
    kl: float | None = None
    reached: bool | None = None
    factor: float | None = None
    words: str = ""

    def recipe(self, prompt: int, sample: int) -> Recipe | None:
        """What writes sample number `sample` of a prompt."""
        mine = self.recipes[prompt % len(self.recipes)]
        return mine[sample % len(mine)]


@dataclass(frozen=True, eq=False)
class Plan:
    """The arms of one job, unsteered first, and why others cannot be run: name -> reason."""

    arms: tuple[Arm, ...]
    skipped: Mapping[str, str]


def check_controls(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """`names` as a tuple (None: all that can be run), or `InputError` that lists the valid ones."""
    if names is None:
        return None
    for name in names:
        if name not in ALL:
            raise InputError(f"Unknown control {name!r}. Valid: {', '.join(ALL)}.")
    if len(set(names)) != len(names):
        raise InputError(f"Controls must be distinct, not {', '.join(names)}.")
    return tuple(names)


def plan(
    model: Model, sae: SAE, job: Job, controls: tuple[str, ...] | None, prompts: int, samples: int, seed: int
) -> Plan:
    """All arms of a job. Controls that were asked for by name and cannot be run raise; else they are skipped."""
    if job.contrast is not None:
        check_contrast(job.recipe, job.contrast)
    target = cost_of(model, job.recipe)
    arms = [Arm(UNSTEERED, ((None,),)), Arm(RECIPE, ((job.recipe,),), kl=target)]
    wanted = ALL if controls is None else controls
    read = None
    if job.contrast is not None and set(wanted) & set(NEED_CONTRAST):
        read = read_contrast(model, sae, job.contrast), read_means(model, job.recipe, job.contrast)
    skipped: dict[str, str] = {}
    for name in wanted:
        try:
            arms.append(_arm(model, sae, job, name, read, prompts, min(samples, DRAWS_PER_PROMPT), seed, target))
        except UnsupportedError as error:
            if controls is not None:
                raise
            skipped[name] = str(error)
    return Plan(tuple(arms), MappingProxyType(skipped))


def _arm(
    model: Model, sae: SAE, job: Job, name: str, read: Read | None, prompts: int, each: int, seed: int, target: float,
) -> Arm:  # fmt: skip
    if name == "prompt":
        if job.words is None:
            raise UnsupportedError("The arm 'prompt' needs words that ask for the concept: give `ask` (--ask).")
        kl = cost_of_words(model, job.words)
        return Arm(name, ((None,),), kl=kl, reached=same_cost(kl, target), words=job.words)
    if name in DRAWN:
        drawn = [_drawn(name, job, sae, read, seed, p, n) for p in range(prompts) for n in range(each)]
    else:
        each, drawn = 1, [_drawn(name, job, sae, read, seed, 0, 0)]
    found = at_same_cost(model, job.recipe, drawn)
    recipes = [found.recipes[i : i + each] for i in range(0, len(drawn), each)]
    factors = sorted(found.factors)
    return Arm(
        name, tuple(recipes), kl=found.kl, reached=found.reached, factor=factors[len(factors) // 2] if factors else None
    )


def _drawn(name: str, job: Job, sae: SAE, read: Read | None, seed: int, prompt: int, draw: int) -> Recipe:
    if name in CONTROLS:
        return control_recipe(name, job.recipe, sae, seed, prompt, draw)
    if read is None or job.contrast is None:
        raise UnsupportedError(f"The arm {name!r} needs the contrast set that the recipe came from (--pairs).")
    if name == "mean-difference":
        return mean_difference(job.recipe, sae, read[0])
    generator = generator_of(name, seed, prompt, draw)
    return shuffled_selection(job.recipe, sae, read[0], job.contrast.paired, generator, read[1])
