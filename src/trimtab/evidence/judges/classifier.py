"""A classifier of words, word pairs and pieces of words, learned from labelled texts (scikit-learn).

Tf-idf and logistic regression. It knows nothing of model, SAE and recipe, so it can be a witness against all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.evidence.judges.judge import Judge, Score, Scorer, learned
from trimtab.find.pairs import ContrastSet
from trimtab.steer.generate import Record

NAME = "classifier"


def classifier(labelled: ContrastSet, held: ContrastSet | None = None) -> Judge:
    """A judge whose score is the log-odds that a text is of the positive side; natural logarithm, 0 is undecided.

    labelled: texts that the steering method has not seen: the other half of a contrast set, or a user's own labelled
    texts as `find.sources.read` takes them. held: texts to try it on; without them its skill is cross-validated.
    """
    return learned(
        NAME, "log-odds of the positive side by words, word pairs and pieces of words", learn, labelled, held
    )


def learn(labelled: ContrastSet) -> Scorer:
    """A classifier of the two sides. Words are in lower case, weighted by sublinear tf-idf; classes weigh the same."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    # Single letters and apostrophes stay: "I", "a" and "don't" are what some contrasts are about.
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"[^\W_]+(?:['’][^\W_]+)?|[!?]")
    # Pieces of 3 to 5 characters know that "sailor" and "sailed" are alike, which helps where texts are few.
    pieces = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    both = make_union(words, pieces)
    texts = [*labelled.positive, *labelled.negative]
    labels = np.array([1] * len(labelled.positive) + [0] * len(labelled.negative))
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=1000)
    model.fit(both.fit_transform(texts), labels)

    def read(records: Sequence[Record]) -> list[Score]:
        scores = model.decision_function(both.transform([one.text for one in records]))
        return [float(score) if one.text.strip() else None for one, score in zip(records, scores, strict=True)]

    return read
