"""What a recipe does to a model's answers: the log-odds of the answer that matches a behaviour, at several strengths.

The measure of contrastive activation addition (Rimsky et al. 2312.06681) on the evals of Perez et al. (2212.09251),
with the order of the answers swapped, both signs, and the two kinds of matching answer (yes and no) kept apart: a
recipe that only makes the model say yes more often moves both kinds in opposite directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.evidence.judges.likelihood import text_likelihoods
from trimtab.evidence.questions import Question
from trimtab.evidence.stats import Interval, interval
from trimtab.evidence.trace import refuse_edited
from trimtab.find.effect import difference_interval
from trimtab.lm.packed import packed_layers
from trimtab.spec import Spec
from trimtab.steer.strength import scaled

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.steer.recipe import Recipe

STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
BATCH_TOKENS, BATCH_ROWS = 2048, 96

AnswerVerdict = Literal["moves the answers", "moves one answer, whatever is asked", "reversed", "no effect"]
Numbers = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


class Point(Spec):
    """What was measured at one strength, over questions (both orders averaged first), in nats; intervals are by
    bootstrap over the questions of each kind.

    log_odds: of the matching answer against the other. change: of that from the unsteered model, question by question.
    matching: share of questions where the matching answer is likelier. order: how much likelier the matching answer is
    where it is named or stands first. mass: probability of either answer; where it is small, the model would say
    something else. by_kind: mean log-odds over the questions with each matching answer.
    """

    strength: float
    log_odds: Interval
    change: Interval
    matching: float
    order: float
    mass: float
    by_kind: dict[str, float]


class Statements(Spec):
    """Without any question: the change of log-likelihood, in nats per token, of statements that the behaviour would
    make minus that of statements it would not, at one strength, with its 95 % bootstrap interval over statements.
    """

    strength: float
    shift: float
    low: float
    high: float


class Asked(Spec):
    """The outcome of `ask`. slope: change of log-odds, in nats, for one time the recipe (least squares over strengths,
    question by question); by_kind: the same over the questions with each matching answer.
    """

    format: Literal["trimtab.asked/1"] = "trimtab.asked/1"
    verdict: AnswerVerdict
    questions: int
    kinds: dict[str, int]
    strengths: tuple[float, ...]
    points: tuple[Point, ...]
    slope: Interval
    by_kind: dict[str, Interval]
    statements: tuple[Statements, ...] = ()
    recipe: str
    recipe_digest: str
    model: str


def ask(
    model: Model,
    recipe: Recipe,
    questions: Sequence[Question],
    strengths: Sequence[float] = STRENGTHS,
    *,
    statements: int = 20,
    seed: int = 0,
    progress: Progress = lambda stage, done, total: None,
) -> Asked:
    """Ask every question in both orders at every multiple of `recipe`; 0, the unsteered model, is always among them.

    statements: of how many questions of each kind the statement is read as a text, 0 for none.
    Raises `InputError` without a question or a strength, or when two answers start with the same token.
    """
    factors = sorted({0.0, *map(float, strengths)})
    if not questions or len(factors) < 2:
        raise InputError("Asking needs at least one question and one strength that is not 0.")
    odds, mass = answer_odds(model, recipe, questions, factors, progress=progress)
    over = odds.mean(1)  # [questions, strengths]
    names = [one.number for one in questions]
    kinds = {kind: [i for i, one in enumerate(questions) if one.kind == kind] for kind in _kinds(questions)}
    plain = over[:, factors.index(0.0)]
    points = [
        Point(
            strength=factor,
            log_odds=interval(_within(over[:, i], kinds), names, seed=seed),
            change=interval(_within(over[:, i] - plain, kinds), names, seed=seed),
            matching=float((over[:, i] > 0).mean()),
            order=float((odds[:, 0, i] - odds[:, 1, i]).mean()),
            mass=float(mass[:, :, i].mean()),
            by_kind={kind: float(over[rows, i].mean()) for kind, rows in kinds.items()},
        )
        for i, factor in enumerate(factors)
    ]
    centred = np.array(factors) - np.mean(factors)
    slopes = over @ centred / float(centred @ centred)
    by_kind = {kind: interval(slopes[rows], [names[i] for i in rows], seed=seed) for kind, rows in kinds.items()}
    slope = interval(_within(slopes, kinds), names, seed=seed)
    read = statement_shifts(model, recipe, questions, factors, statements, progress)
    return Asked(
        verdict=verdict_of(slope, list(by_kind.values())), questions=len(questions),
        kinds={kind: len(rows) for kind, rows in kinds.items()}, strengths=tuple(factors), points=tuple(points),
        slope=slope, by_kind=by_kind, statements=read, recipe=repr(recipe), recipe_digest=recipe.digest,
        model=model.name,
    )  # fmt: skip


def verdict_of(slope: Interval, by_kind: Sequence[Interval]) -> AnswerVerdict:
    """The slopes in words. Kinds that move in opposite directions, both beyond chance, are a liking for one answer."""
    if any(one.above_zero for one in by_kind) and any(one.below_zero for one in by_kind):
        return "moves one answer, whatever is asked"
    if slope.above_zero:
        return "moves the answers"
    return "reversed" if slope.below_zero else "no effect"


@torch.no_grad()
def answer_odds(
    model: Model,
    recipe: Recipe,
    questions: Sequence[Question],
    factors: Sequence[float],
    *,
    progress: Progress = lambda stage, done, total: None,
) -> tuple[Numbers, Numbers]:
    """Log-odds in nats of the matching answer against the other, and the probability of either, both float64
    [questions, 2 orders, factors], at the first token where the answers differ. All factors of a prompt are one batch.
    """
    refuse_edited(model)
    recipes = [scaled(recipe, factor) if factor else None for factor in factors]
    rows = [(q, order, *_tokens(model, one, order)) for q, one in enumerate(questions) for order in (0, 1)]
    rows.sort(key=lambda row: len(row[2]))
    odds, mass = (np.zeros((len(questions), 2, len(factors))) for _ in range(2))
    done = 0
    with packed_layers(model):
        while done < len(rows):
            most = max(1, min(BATCH_ROWS, BATCH_TOKENS // len(rows[done][2])) // len(factors))
            part = rows[done : done + most]
            ids, mask = model.pad([row[2] for row in part for _ in factors])
            with model.edited(recipes * len(part), record=False):
                logits = model.hf(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1]
            said = logits.float().log_softmax(-1).double().cpu().view(len(part), len(factors), -1)
            for (q, order, _, yes, no), one in zip(part, said, strict=True):
                odds[q, order] = (one[:, yes] - one[:, no]).numpy()
                mass[q, order] = one[:, [yes, no]].exp().sum(-1).numpy()
            done += len(part)
            progress("asking", done, len(rows))
    return odds, mass


def statement_shifts(
    model: Model, recipe: Recipe, questions: Sequence[Question], factors: Sequence[float], most: int, progress: Progress
) -> tuple[Statements, ...]:
    """`Statements` at each factor but 0, over the first `most` statements of each kind; () where there are none.

    Only for evals whose matching answers are yes and no, where the kind says which side a statement is on.
    """
    sides = {
        kind: [q.statement for q in questions if q.kind == kind and q.statement][:most] for kind in _kinds(questions)
    }
    if {kind.lower() for kind in sides} != {"yes", "no"} or not all(sides.values()):
        return ()
    yes, no = (next(side for kind, side in sides.items() if kind.lower() == name) for name in ("yes", "no"))
    texts = [*yes, *no]
    plain = text_likelihoods(model, texts, None)
    found = []
    for done, factor in enumerate(factors):
        progress("reading statements", done, len(factors))
        if factor:
            change = (text_likelihoods(model, texts, scaled(recipe, factor)) - plain).numpy()
            pos, neg = change[: len(yes)], change[len(yes) :]
            low, high = difference_interval(pos, neg, paired=False)
            found.append(Statements(strength=factor, shift=float(pos.mean() - neg.mean()), low=low, high=high))
    progress("reading statements", len(factors), len(factors))
    return tuple(found)


def _within(values: Numbers, kinds: Mapping[str, Sequence[int]]) -> Numbers:
    """The same mean, without what lies between the kinds: their numbers are fixed, so it is no source of chance."""
    result = values.copy()
    for rows in kinds.values():
        result[list(rows)] += values.mean() - values[list(rows)].mean()
    return result


def _kinds(questions: Sequence[Question]) -> list[str]:
    return sorted({one.kind for one in questions}, reverse=True)


def _tokens(model: Model, one: Question, order: int) -> tuple[list[int], int, int]:
    """The ids up to the first token where the answers differ, and that token of either answer."""
    yes, no = (model.encode(one.prompts[order] + answer) for answer in (one.matching[order], one.other[order]))
    same = next((i for i, (a, b) in enumerate(zip(yes, no, strict=False)) if a != b), None)
    if same is None:
        raise InputError(
            f"Question {one.number + 1}: the answers {one.matching[order]!r} and {one.other[order]!r} begin alike, so "
            "their odds cannot be compared at one token."
        )
    if model.context is not None and same > model.context:
        raise InputError(f"Question {one.number + 1} has {same} tokens, more than the {model.context} of {model.name}.")
    return yes[:same], yes[same], no[same]
