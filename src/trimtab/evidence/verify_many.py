"""Several recipes verified together: they share the unsteered texts, a batch, and the correction for being several."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.evidence.judging import check_judges, note_of, opinions
from trimtab.evidence.measure import Spread, Text, contrast, read_texts, sample_of, selectivity, summarise
from trimtab.evidence.plan import Job, Plan, check_controls, plan
from trimtab.evidence.receipts import receipt
from trimtab.evidence.stats import holm
from trimtab.evidence.targets import targets_of
from trimtab.evidence.trace import refuse_edited
from trimtab.evidence.values import RECIPE, UNSTEERED, Contrast, Edited, Evidence, Judge, Made, Sample, Target
from trimtab.evidence.verdict import judge
from trimtab.evidence.write import Line, Progress, write
from trimtab.sae.load import check_fits
from trimtab.spec import Sampling

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE

Comparison = tuple[Contrast, ...]


def verify_many(
    model: Model,
    sae: SAE,
    jobs: Mapping[str, Job],
    prompts: Sequence[str],
    *,
    samples: int,
    sampling: Sampling,
    seed: int = 0,
    controls: Sequence[str] | None = None,
    judges: Sequence[Judge] = (),
    progress: Progress | None = None,
) -> list[Evidence]:
    """`verify` for several recipes at once: question -> job. p-values are corrected for there being several."""
    prompts, wanted = _checked(prompts, samples, jobs), check_controls(controls)
    check_judges(judges)
    check_fits(sae, model)
    refuse_edited(model)
    targets = [targets_of(job.recipe, sae, job.read) for job in jobs.values()]
    plans = []
    for job in jobs.values():
        plans.append(plan(model, sae, job, wanted, len(prompts), samples, seed))
        if progress is not None:
            progress("matching controls", len(plans), len(jobs))
    groups = _groups(plans)
    texts = _write(model, plans, groups, prompts, samples, sampling, seed, progress)
    features = sorted({feature for some in targets for target in some for feature in target.features})
    readings, spreads = read_texts(model, sae, features, texts, progress)
    judged = opinions(model, judges, readings, prompts)
    found = []
    for n, some in enumerate(targets):
        mine = {group: arm for group, (job, arm) in groups.items() if arm == UNSTEERED or job == n}
        found.append(
            [
                sample_of(reading, features, some, mine[reading.text.group], said)
                for reading, said in zip(readings, judged, strict=True)
                if reading.text.group in mine
            ]
        )
    receipts = [receipt(model, job.recipe, mine) for job, mine in zip(jobs.values(), found, strict=True)]
    made = _made(model, sae, jobs, plans, prompts, samples, sampling, seed, judges, receipts)
    comparisons = _compared(found, plans, targets)
    return [
        _evidence(question, some, one, mine, gaps, (spreads[f"{RECIPE} {n}"], spreads[UNSTEERED]), how)
        for n, (question, some, one, mine, gaps, how) in enumerate(
            zip(jobs, targets, plans, found, comparisons, made, strict=True)
        )
    ]


def _groups(plans: Sequence[Plan]) -> dict[str, tuple[int, str]]:
    """What is written, once each: group -> (job, arm). The unsteered group serves every job."""
    found = {UNSTEERED: (0, UNSTEERED)}
    return found | {f"{arm.name} {n}": (n, arm.name) for n, one in enumerate(plans) for arm in one.arms[1:]}


def _write(
    model: Model, plans: Sequence[Plan], groups: Mapping[str, tuple[int, str]], prompts: Sequence[str], samples: int,
    sampling: Sampling, seed: int, progress: Progress | None,
) -> list[Text]:  # fmt: skip
    """The texts of all groups, each with the same seeds."""
    places, lines = [], []
    for group, (job, name) in groups.items():
        arm = next(arm for arm in plans[job].arms if arm.name == name)
        for p, prompt in enumerate(prompts):
            for s in range(samples):
                places.append((group, p, s))
                lines.append(Line(prompt, s, arm.recipe(p, s), arm.words))
    written = write(model, lines, sampling, seed, progress)
    return [Text(group, p, s, seed, ids, start) for (group, p, s), (ids, start) in zip(places, written, strict=True)]


def _compared(
    found: Sequence[list[Sample]], plans: Sequence[Plan], targets: Sequence[tuple[Target, ...]]
) -> list[Comparison]:
    """The paired differences of each job: every arm against unsteered, and the recipe against every other arm."""
    out: list[Comparison] = []
    for samples, one, some in zip(found, plans, targets, strict=True):
        names = [arm.name for arm in one.arms[1:]]
        pairs = [(name, UNSTEERED) for name in names] + [(RECIPE, name) for name in names[1:]]
        out.append(tuple(contrast(samples, arm, against, some) for arm, against in pairs))
    keys = [f"firing:{some[0].name}" for some in targets]
    first = holm({str(n): gaps[0].scores[key].p for n, (gaps, key) in enumerate(zip(out, keys, strict=True))})
    for n, (gaps, key, some) in enumerate(zip(out, keys, targets, strict=True)):
        others = holm({f"firing:{t.name}": gaps[0].scores[f"firing:{t.name}"].p for t in some[1:]})
        corrected = gaps[0].model_copy(update={"corrected": {key: first[str(n)], **others}})
        out[n] = (corrected, *gaps[1:])
    return out


def _evidence(
    question: str, targets: tuple[Target, ...], plan: Plan, samples: list[Sample], contrasts: Comparison,
    spreads: tuple[Spread, Spread], made: Made,
) -> Evidence:  # fmt: skip
    arms = summarise(samples, plan.arms)
    ranks = selectivity(targets, *spreads)
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
    model: Model, sae: SAE, jobs: Mapping[str, Job], plans: Sequence[Plan], prompts: tuple[str, ...], samples: int,
    sampling: Sampling, seed: int, judges: Sequence[Judge], receipts: Sequence[tuple[Edited, ...]],
) -> list[Made]:  # fmt: skip
    found = versions()
    return [
        Made(
            model=model.name,
            model_fingerprint=model.fingerprint,
            sae=sae.name,
            sae_fingerprint=sae.fingerprint,
            site=sae.site,
            recipe=repr(job.recipe),
            recipe_digest=job.recipe.digest,
            prompts=prompts,
            samples=samples,
            sampling=sampling,
            seed=seed,
            controls=tuple(arm.name for arm in one.arms[2:]),
            skipped=dict(one.skipped),
            contrast=None if job.contrast is None else job.contrast.digest,
            ask=job.words,
            receipt=edited,
            judges=tuple(note_of(judge) for judge in judges),
            versions=found,
        )
        for job, one, edited in zip(jobs.values(), plans, receipts, strict=True)
    ]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in ("trimtab", "torch", "transformers", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
