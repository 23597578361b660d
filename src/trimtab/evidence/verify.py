"""Does a recipe do what it is meant to? Write with and without it, read all with the unsteered model, compare."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.evidence.arms import LABELS, check_controls, control_recipe
from trimtab.evidence.judging import check_judges, opinions
from trimtab.evidence.measure import Text, contrast, read_texts, sample_of, selectivity, summarise
from trimtab.evidence.targets import targets_of
from trimtab.evidence.trace import refuse_edited
from trimtab.evidence.values import RECIPE, UNSTEERED, Evidence, Judge, Made, Sample, Target
from trimtab.evidence.verdict import judge
from trimtab.evidence.write import Line, Progress, write
from trimtab.sae.load import check_fits
from trimtab.spec import Sampling

if TYPE_CHECKING:
    from torch import Tensor

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
    controls: Sequence[str] = ("random",),
    judges: Sequence[Judge] = (),
    read: Mapping[int, float] | None = None,
    question: str | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Write `samples` texts per prompt and arm (unsteered, recipe, each control) with the same seeds, and compare.

    Every text goes back through the unsteered model; only generated tokens count. The rules of the verdict are those of
    `trimtab.evidence.verdict`. `controls`: see `trimtab.evidence.arms.CONTROLS`. `read` (feature -> weight) names what
    to look at when it is not the recipe's own features. `judges` score the texts by other means: see
    `trimtab.evidence.values.Judge`. `question` heads the report.
    Raises `InputError` for bad arguments, `MismatchError` when SAE or recipe are not for this model, and
    `UnsupportedError` when the model is being edited or a control cannot be run for this recipe.
    """
    question = question or f"Does {recipe!r} do what it should?"
    jobs = {question: (recipe, read)}
    return verify_many(
        model,
        sae,
        jobs,
        prompts,
        samples=samples,
        sampling=Sampling.parse(
            {
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
            }
        ),
        seed=seed,
        controls=controls,
        judges=judges,
        progress=progress,
    )[0]


def verify_many(
    model: Model,
    sae: SAE,
    jobs: Mapping[str, tuple[Recipe, Mapping[int, float] | None]],
    prompts: Sequence[str],
    *,
    samples: int,
    sampling: Sampling,
    seed: int = 0,
    controls: Sequence[str] = ("random",),
    judges: Sequence[Judge] = (),
    progress: Progress | None = None,
) -> list[Evidence]:
    """`verify` for several recipes at once: question -> (recipe, read). All share the unsteered texts."""
    prompts, controls = _checked(prompts, samples, jobs), check_controls(controls)
    check_judges(judges)
    check_fits(sae, model)
    refuse_edited(model)
    recipes = [recipe for recipe, _ in jobs.values()]
    targets = [targets_of(recipe, sae, read) for recipe, read in jobs.values()]
    rows = [
        (group, p, s, _recipe_of(arm, recipes[job], sae, seed, p, s))
        for group, (job, arm) in _groups(len(jobs), controls).items()
        for p in range(len(prompts))
        for s in range(samples)
    ]
    written = write(model, [Line(prompts[p], s, recipe) for _, p, s, recipe in rows], sampling, seed, progress)
    texts = [Text(group, p, s, seed, ids, start) for (group, p, s, _), (ids, start) in zip(rows, written, strict=True)]
    features = sorted({feature for some in targets for target in some for feature in target.features})
    readings, means = read_texts(model, sae, features, texts, progress)
    judged = opinions(model, judges, readings, prompts)
    out = []
    for job, question in enumerate(jobs):
        mine = {group: arm for group, (j, arm) in _groups(len(jobs), controls).items() if arm == UNSTEERED or j == job}
        found = [
            sample_of(reading, features, targets[job], mine[reading.text.group], said)
            for reading, said in zip(readings, judged, strict=True)
            if reading.text.group in mine
        ]
        by_arm = {arm: means[group] for group, arm in mine.items()}
        made = _made(model, sae, recipes[job], prompts, samples, sampling, seed, controls, judges)
        out.append(_evidence(question, targets[job], found, by_arm[RECIPE] - by_arm[UNSTEERED], made))
    return out


def _groups(jobs: int, controls: Sequence[str]) -> dict[str, tuple[int, str]]:
    """What is written, once each: group -> (job, arm). The unsteered group serves every job."""
    found = {UNSTEERED: (0, UNSTEERED)}
    return found | {f"{arm} {job}": (job, arm) for job in range(jobs) for arm in (RECIPE, *controls)}


def _recipe_of(arm: str, recipe: Recipe, sae: SAE, seed: int, prompt: int, sample: int) -> Recipe | None:
    if arm == UNSTEERED:
        return None
    return recipe if arm == RECIPE else control_recipe(arm, recipe, sae, seed, prompt, sample)


def _evidence(
    question: str, targets: tuple[Target, ...], samples: list[Sample], change: Tensor, made: Made
) -> Evidence:
    names = [UNSTEERED, RECIPE, *made.controls]
    arms = summarise(samples, names, dict(LABELS))
    pairs = [(name, UNSTEERED) for name in names[1:]] + [(RECIPE, name) for name in made.controls]
    contrasts = tuple(contrast(samples, arm, against) for arm, against in pairs)
    ranks = selectivity(targets, change)
    verdict, reasons = judge(targets[0], arms, contrasts, ranks)
    return Evidence(
        question=question,
        verdict=verdict,
        reasons=reasons,
        primary=targets[0].name,
        targets=targets,
        arms=arms,
        contrasts=contrasts,
        selectivity=ranks,
        samples=tuple(samples),
        made=made,
    )


def _checked(prompts: Sequence[str], samples: int, jobs: Mapping[str, object]) -> tuple[str, ...]:
    if isinstance(prompts, str) or not prompts:
        raise InputError("`prompts` must be a list of at least one prompt.")
    if len(set(prompts)) != len(prompts):
        raise InputError("The same prompt was given twice: its samples would be the same texts.")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise InputError(f"`samples` must be a whole number of at least 1, not {samples!r}.")
    if not jobs:
        raise InputError("There is nothing to verify: give at least one recipe.")
    return tuple(prompts)


def _made(
    model: Model,
    sae: SAE,
    recipe: Recipe,
    prompts: tuple[str, ...],
    samples: int,
    sampling: Sampling,
    seed: int,
    controls: tuple[str, ...],
    judges: Sequence[Judge],
) -> Made:
    return Made(
        model=model.name,
        model_fingerprint=model.fingerprint,
        sae=sae.name,
        sae_fingerprint=sae.fingerprint,
        site=sae.site,
        recipe=repr(recipe),
        recipe_digest=recipe.digest,
        prompts=prompts,
        samples=samples,
        sampling=sampling,
        seed=seed,
        controls=controls,
        judges=tuple(judge.name for judge in judges),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in ("trimtab", "torch", "transformers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
