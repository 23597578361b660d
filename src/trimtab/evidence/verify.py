"""Does a recipe do what it is meant to? Write with and without it, read all with the unsteered model, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trimtab.evidence.plan import Job
from trimtab.evidence.values import Evidence, Judge
from trimtab.evidence.verify_many import verify_many
from trimtab.evidence.write import Progress
from trimtab.spec import Sampling

if TYPE_CHECKING:
    from trimtab.find.pairs import ContrastSet
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe


def verify(
    model: Model,
    sae: SAE,
    recipe: Recipe,
    prompts: Sequence[str],
    *,
    samples: int = 8,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    controls: Sequence[str] | None = None,
    contrast: ContrastSet | None = None,
    ask: str | None = None,
    judges: Sequence[Judge] = (),
    read: Mapping[int, float] | None = None,
    question: str | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Write `samples` texts per prompt and arm (unsteered, recipe, each control) with the same seeds, and compare.

    Every text goes back through the unsteered model; only generated tokens count. The rules of the verdict are those of
    `trimtab.evidence.verdict`. `controls`: names from `trimtab.evidence.plan.ALL`, None for all that can be run; each
    is brought to the recipe's KL on neutral text. `contrast`, the set that the recipe was found with, is needed by
    "shuffled" and "mean-difference"; `ask`, words that ask for the concept, by "prompt" (None: made of the set's name).
    `read` (feature -> weight) names what to look at when it is not the recipe's own features. `judges` score the texts
    by other means: see `trimtab.evidence.values.Judge`. `question` heads the report.
    Raises `InputError` for bad arguments, `MismatchError` when SAE or recipe are not for this model or the contrast set
    is not the recipe's, and `UnsupportedError` when the model is being edited or a control asked for cannot be run.
    """
    sampling = Sampling.parse(
        {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
    )
    return verify_many(
        model,
        sae,
        {question or f"Does {recipe} do what it should?": Job(recipe, read, contrast, ask)},
        prompts,
        samples=samples,
        sampling=sampling,
        seed=seed,
        controls=controls,
        judges=judges,
        progress=progress,
    )[0]
