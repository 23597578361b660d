"""A language model behind an endpoint as a judge: three questions on a scale of 0, 1, 2, and their harmonic mean.

The scheme is that of AxBench (Wu et al. 2501.17148): does the text show the concept, does it do what it was asked, is
it fluent; any 0 makes the whole 0. The questions are our own, so the numbers are not AxBench's. An answer that is not
one of the three digits leaves the text unscored.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trimtab.endpoint import Endpoint
from trimtab.errors import InputError
from trimtab.evidence.judges.judge import Judge, Score, Scorer
from trimtab.steer.generate import Record

_SCALE = "Answer with one digit and nothing else."
CONCEPT = (
    "How strongly does the text below show this concept: {concept}?\n"
    "0: not at all. 1: somewhat, or only in passing. 2: clearly.\n"
    "Judge the concept alone, not how well the text is written. " + _SCALE + "\n\nText:\n{text}"
)
INSTRUCTION = (
    "A writer was asked to go on with the beginning below. How well does the continuation follow from it?\n"
    "0: it has nothing to do with it. 1: partly. 2: it goes on from it naturally.\n"
    "Judge only whether it follows. " + _SCALE + "\n\nBeginning:\n{prompt}\n\nContinuation:\n{text}"
)
FLUENCY = (
    "How fluent is the text below?\n"
    "0: unreadable, or it repeats itself over and over. 1: understandable with clear faults. 2: fluent.\n"
    "It may stop in the middle of a sentence. Judge the language alone. " + _SCALE + "\n\nText:\n{text}"
)


def chat_judges(endpoint: Endpoint, concept: str) -> list[Judge]:
    """Judges for concept, instruction and fluency, 0 to 2, and for their harmonic mean, which asks nothing again."""
    if not concept.strip():
        raise InputError("Name the concept in words for the judge to ask about, such as 'the sea'.")
    asked: dict[str, str] = {}
    about = f"0 to 2 by {endpoint.model}: "
    scorers = {
        "concept": _scorer(endpoint, CONCEPT, concept, asked),
        "instruction": _scorer(endpoint, INSTRUCTION, concept, asked),
        "fluency": _scorer(endpoint, FLUENCY, concept, asked),
    }
    judges = [Judge(f"chat {name}", about + name, read) for name, read in scorers.items()]

    def together(records: Sequence[Record]) -> list[Score]:
        return [harmonic_mean(scores) for scores in zip(*(read(records) for read in scorers.values()), strict=True)]

    return [*judges, Judge("chat", about + "harmonic mean of concept, instruction and fluency", together)]


def parse_digit(answer: str) -> int | None:
    """The digit of an answer that is 0, 1 or 2 with nothing around it but punctuation; else None."""
    found = re.fullmatch(r"[\s\W]*([012])[\s\W]*", answer)
    return int(found.group(1)) if found else None


def harmonic_mean(scores: Sequence[Score]) -> Score:
    """Of scores that are not negative: 0 when any is 0, None when any is missing."""
    known = [score for score in scores if score is not None]
    if not scores or len(known) < len(scores):
        return None
    return 0.0 if min(known) <= 0 else len(known) / sum(1 / score for score in known)


def _scorer(endpoint: Endpoint, question: str, concept: str, asked: dict[str, str]) -> Scorer:
    def one(record: Record) -> Score:
        if not record.text.strip():
            return None
        prompt = question.format(concept=concept, prompt=record.prompt, text=record.text)
        if prompt not in asked:
            asked[prompt] = endpoint.ask(prompt, most=8)
        return parse_digit(asked[prompt])

    return lambda records: [one(record) for record in records]
