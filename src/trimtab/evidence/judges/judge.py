"""What a judge is: a name, a function from texts to scores, and how well it tells texts whose answer is known.

A judge that learns from labelled texts is tried on texts that it did not learn from, and refuses to judge when it can
hardly tell the two sides apart. An unscored text is None, never 0.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtab.errors import InputError
from trimtab.find.overlap import near_duplicates
from trimtab.find.pairs import ContrastSet
from trimtab.find.stats import separation
from trimtab.steer.generate import Record

if TYPE_CHECKING:
    from trimtab.lm.model import Model

MIN_AUC, MAX_P = 0.7, 0.01
"""A judge is believed from this AUC on held-out texts on, if chance would reach it in at most this share of trials."""

FOLDS = 5


Score = float | None
Scorer = Callable[[Sequence[Record]], list[Score]]
"""Scores of records, one each, in their order; None where a text cannot be scored."""

Learn = Callable[[ContrastSet], Scorer]
"""Learns to tell the sides of a contrast: larger scores for texts like the positive ones."""


@dataclass(frozen=True)
class Skill:
    """How well a judge tells positive from negative texts that it did not learn from.

    auc: 0.5 is guessing, with its 95 % bootstrap interval over pairs (over texts where there are none); p: two-sided,
    of the Mann-Whitney test; texts: how many were tried; unscored: how many of them it gave no score.
    """

    auc: float
    low: float
    high: float
    p: float
    texts: int
    unscored: int

    @property
    def enough(self) -> bool:
        """Whether the judge can be believed: see `MIN_AUC` and `MAX_P`."""
        return self.auc >= MIN_AUC and self.p < MAX_P


@dataclass(frozen=True, eq=False)
class Judge:
    """A named judge. Calling it scores records.

    about: what a score is, in a few words, with its unit. good: 1 where more is wanted of a concept or of fluency, -1
    where less is. share: scores lie between 0 and 1. skill: None for a judge that learned nothing. odds: the
    log-odds that a text is of the positive side are odds[0] + odds[1] * score (Platt 1999), by held-out texts alone.
    """

    name: str
    about: str
    read: Scorer
    good: int = 1
    share: bool = False
    skill: Skill | None = None
    odds: tuple[float, float] | None = None

    def probability(self, score: Score) -> Score:
        """How likely a text of this score is of the positive side; None for an unscored one or a judge without odds."""
        if score is None or self.odds is None:
            return None
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, self.odds[0] + self.odds[1] * score))))

    @property
    def refusal(self) -> str | None:
        """Why this judge leaves everything unscored; None when it judges."""
        if self.skill is None or self.skill.enough:
            return None
        return (
            f"{self.name} cannot tell the two sides apart: AUC {self.skill.auc:.2f} on {self.skill.texts} held-out "
            f"texts (p {self.skill.p:.2g}); at least {MIN_AUC} with p below {MAX_P} is asked for"
        )

    def __call__(self, records: Sequence[Record]) -> list[Score]:
        """One score for each passage, None where there is none. Raises `InputError` for a score that is not finite."""
        if self.refusal is not None:
            return [None] * len(records)
        scores = self.read(records) if records else []
        if len(scores) != len(records):
            raise InputError(f"The judge {self.name!r} gave {len(scores)} scores for {len(records)} texts.")
        for place, score in enumerate(scores):
            if score is not None and not math.isfinite(score):
                raise InputError(f"The judge {self.name!r} gave text {place} the score {score}, which is no number.")
        return scores

    def as_dict(self) -> dict[str, Any]:
        """What a report says of the judge: plain values."""
        skill = None if self.skill is None else {**self.skill.__dict__, "enough": self.skill.enough}
        return {
            "name": self.name,
            "about": self.about,
            "good": self.good,
            "skill": skill,
            "odds": self.odds,
            "refusal": self.refusal,
        }


def texts_as_records(texts: Sequence[str], model: Model | None = None) -> list[Record]:
    """Texts that nobody generated, such as those of a contrast, in the form that judges read.

    With `model`, they are tokenised, for judges that read tokens; BOS is not judged.
    """
    rows = [tuple(model.encode(text)) if model is not None else () for text in texts]
    starts = [int(model is not None and bool(row) and row[0] == model.bos_id) for row in rows]
    return [
        Record("", text, row, start, recipe=None, seed=0, sample=number, finished="length")
        for number, (text, row, start) in enumerate(zip(texts, rows, starts, strict=True))
    ]


def learned(
    name: str, about: str, learn: Learn, contrast: ContrastSet, held: ContrastSet | None = None, *,
    model: Model | None = None, share: bool = False,
) -> Judge:  # fmt: skip
    """The judge that `learn` makes of `contrast`, with its skill on `held`.

    Without `held` the skill is cross-validated: `contrast` is cut in five, pairs and near duplicates kept together,
    each part is scored by a judge of the other four, and the judge returned has learned from all. `model` tokenises
    the texts, for judges that read tokens.
    """
    read = learn(contrast)
    if held is not None:
        scores = read(texts_as_records(held.positive, model)), read(texts_as_records(held.negative, model))
    else:
        scores = out_of_fold(learn, contrast, model)
    skill = _skill(*scores, (held or contrast).paired)
    return Judge(name, about, read, share=share, skill=skill, odds=_odds(*scores))


def skill_of(read: Scorer, held: ContrastSet, model: Model | None = None) -> Skill:
    """How well `read` tells the two sides of `held` apart."""
    return _skill(
        read(texts_as_records(held.positive, model)), read(texts_as_records(held.negative, model)), held.paired
    )


def out_of_fold(learn: Learn, contrast: ContrastSet, model: Model | None = None) -> tuple[list[Score], list[Score]]:
    """Scores of the positive and of the negative texts, each by a judge that has seen neither it nor its pair."""
    positive: list[Score] = [None] * len(contrast.positive)
    negative: list[Score] = [None] * len(contrast.negative)
    for rows, others in folds(contrast):
        rest = ContrastSet(
            contrast.name,
            tuple(text for i, text in enumerate(contrast.positive) if i not in rows),
            tuple(text for i, text in enumerate(contrast.negative) if i not in others),
            contrast.paired,
        )
        read = learn(rest)
        for texts, places, out in ((contrast.positive, rows, positive), (contrast.negative, others, negative)):
            order = sorted(places)
            for i, score in zip(order, read(texts_as_records([texts[i] for i in order], model)), strict=True):
                out[i] = score
    return positive, negative


def folds(contrast: ContrastSet, n: int = FOLDS, seed: int = 0) -> list[tuple[set[int], set[int]]]:
    """`n` parts as (positive rows, negative rows). Pairs and near duplicates share a part."""
    count = len(contrast.positive)
    texts = [*contrast.positive, *contrast.negative]
    group = list(range(len(texts)))
    ties = near_duplicates(texts) + ([(i, count + i) for i in range(count)] if contrast.paired else [])
    for i, j in ties:
        old, new = group[j], group[i]
        group = [new if g == old else g for g in group]
    members: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        members.setdefault(g, []).append(i)
    order = list(members.values())
    random.Random(f"folds {seed}").shuffle(order)
    parts: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in range(n)]
    for rows in sorted(order, key=len, reverse=True):
        side = 0 if rows[0] < count else 1
        part = min(parts, key=lambda one: (len(one[side]), len(one[0]) + len(one[1])))
        for i in rows:
            part[i >= count].add(i if i < count else i - count)
    if any(not rows and not others for rows, others in parts):
        raise InputError(f"{contrast.name} is too small, or too repetitive, for a judge to learn from and be tried on.")
    return parts


def _odds(positive: Sequence[Score], negative: Sequence[Score]) -> tuple[float, float] | None:
    """Intercept and slope of the log-odds over the score, both sides weighing the same; None where one is unscored."""
    from sklearn.linear_model import LogisticRegression

    sides = [[score for score in side if score is not None] for side in (positive, negative)]
    if not all(sides):
        return None
    scores = np.array([*sides[0], *sides[1]])
    middle, spread = float(scores.mean()), float(scores.std())
    if spread == 0:
        return 0.0, 0.0
    fitted = LogisticRegression(class_weight="balanced").fit(
        (scores[:, None] - middle) / spread, [1] * len(sides[0]) + [0] * len(sides[1])
    )
    slope = float(fitted.coef_[0, 0]) / spread
    return float(fitted.intercept_[0]) - slope * middle, slope


def _skill(positive: Sequence[Score], negative: Sequence[Score], paired: bool, draws: int = 1000) -> Skill:
    texts = len(positive) + len(negative)
    pos = np.array([np.nan if score is None else score for score in positive], dtype=np.float64)
    neg = np.array([np.nan if score is None else score for score in negative], dtype=np.float64)
    unscored = int(np.isnan(pos).sum() + np.isnan(neg).sum())
    has, had = ~np.isnan(pos), ~np.isnan(neg)
    if not has.any() or not had.any():
        return Skill(0.5, 0.0, 1.0, 1.0, texts, unscored)
    found = separation(pos[has, None], neg[had, None])
    above = np.where(np.isnan(pos[:, None] - neg), np.nan, (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg))
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(draws):
        rows = rng.integers(0, len(pos), len(pos))
        columns = rows if paired else rng.integers(0, len(neg), len(neg))
        drawn = above[np.ix_(rows, columns)]
        if not np.isnan(drawn).all():
            shares.append(float(np.nanmean(drawn)))
    low, high = np.quantile(shares, [0.025, 0.975])
    return Skill(float(found.auc[0]), float(low), float(high), float(found.p[0]), texts, unscored)
