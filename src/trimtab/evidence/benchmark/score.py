"""From what judges say of a text to three numbers between 0 and 1: concept, fluency, and both together.

Concept: each judge of words (classifier, embedding, word list) says how likely the text is of the concept's side, by
what it was seen to know of held-out texts. The log-odds are averaged (a logarithmic opinion pool, Genest and Zidek
1986), so that a judge that knows little says little, and one that is misled is outvoted. With p the pooled probability,
the score is 2 p - 1, not below 0: how much surer than a coin they are together.

Fluency: the lower of two. Likelihood: 1 at the mean log-likelihood of the unsteered texts or above, 0 at that of the
same texts with their tokens shuffled, straight in between; the same under an independent model if there is one.
Variety: 1 less twice the share of 4-grams that occurred before, so 0 when half of the text repeats itself.

Score: the harmonic mean of concept and fluency, so 0 when either is. Missing is missing, not 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.evidence.judges.chat import harmonic_mean
from trimtab.evidence.judges.judge import Judge, Score

WITNESSES = ("classifier", "embedding", "word list")
"""The judges that decide on the concept. They know nothing of the model and its SAEs."""

LIKELIHOODS = ("log-likelihood", "independent log-likelihood")


@dataclass(frozen=True)
class Anchor:
    """Mean log-likelihoods that fluency is measured against, nats per token: of fluent text and of shuffled tokens."""

    fluent: float
    shuffled: float

    def share(self, value: float) -> float:
        """1 at `fluent` or above, 0 at `shuffled` or below."""
        return max(0.0, min(1.0, (value - self.shuffled) / max(self.fluent - self.shuffled, 1e-9)))


def concept_score(probabilities: Sequence[Score]) -> Score:
    """From the probabilities that a text is of the concept's side, one of each witness (None: unscored)."""
    odds = [math.log(p / (1 - p)) for p in probabilities if p is not None]
    return max(0.0, 2 / (1 + math.exp(-sum(odds) / len(odds))) - 1) if odds else None


def fluency_score(scores: Mapping[str, Score], anchors: Mapping[str, Anchor]) -> Score:
    """From the scores of `fluency_judges`; None where one that counts is missing (a text of under 4 tokens)."""
    parts: list[Score] = []
    for name, anchor in anchors.items():
        value = scores.get(name)
        parts.append(None if value is None else anchor.share(value))
    repeated = scores.get("repetition")
    parts.append(None if repeated is None else max(0.0, 1 - 2 * repeated))
    known = [part for part in parts if part is not None]
    return min(known) if len(known) == len(parts) else None


@dataclass(frozen=True)
class Scored:
    """The three numbers of one text."""

    concept_score: Score
    fluency_score: Score
    score: Score


def scored(
    columns: Mapping[str, Sequence[Score]], judges: Mapping[str, Judge], anchors: Mapping[str, Anchor]
) -> list[Scored]:
    """The numbers of every text of a unit, from its judges' columns of scores."""
    out = []
    for row in range(len(next(iter(columns.values()), ()))):
        mine = {name: column[row] for name, column in columns.items()}
        concept = concept_score([judges[name].probability(mine[name]) for name in WITNESSES if name in judges])
        fluency = fluency_score(mine, anchors)
        out.append(Scored(concept, fluency, harmonic_mean([concept, fluency])))
    return out
