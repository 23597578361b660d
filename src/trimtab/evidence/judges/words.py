"""Word lists with types counted, not tokens: saying one word of the list ten times counts once."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.errors import FileError, InputError
from trimtab.evidence.judges.judge import Judge, Score, Scorer, learned, skill_of
from trimtab.find.pairs import ContrastSet
from trimtab.steer.generate import Record

NAME = "word list"
_ABOUT = "different words of the concept's list in a text, less those of the opposite list"
LIMIT = 200
PRIOR = 0.5


@dataclass(frozen=True)
class WordLists:
    """Words of the concept and words of its opposite (may be empty), in lower case, the most telling first."""

    concept: tuple[str, ...]
    opposite: tuple[str, ...] = ()

    def count(self, text: str) -> int:
        """Different words of `concept` in `text`, less those of `opposite`."""
        said = set(words_of(text))
        return len(said.intersection(self.concept)) - len(said.intersection(self.opposite))


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; an apostrophe inside a word belongs to it, ! and ? are words."""
    return re.findall(r"[^\W_]+(?:['’][^\W_]+)*|[!?]", text.lower())


def word_lists(contrast: ContrastSet, limit: int = LIMIT) -> WordLists:
    """The words that stand in more texts of one side than of the other, by log-odds over its standard error.

    Each text counts a word once. The log-odds are smoothed by half a text on each side (Haldane and Anscombe), and a
    word is listed from 1 standard error on: single words are weak signs, and the judge adds up many.
    """
    n, m = len(contrast.positive), len(contrast.negative)
    sides = (contrast.positive, contrast.negative)
    counts = [Counter(word for text in side for word in set(words_of(text))) for side in sides]
    ratios: dict[str, float] = {}
    for word in sorted({*counts[0], *counts[1]}):
        a, b = counts[0][word] + PRIOR, counts[1][word] + PRIOR
        c, d = n - counts[0][word] + PRIOR, m - counts[1][word] + PRIOR
        ratios[word] = math.log(a * d / (b * c)) / math.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    best = sorted(ratios, key=lambda word: -abs(ratios[word]))
    return WordLists(
        tuple(word for word in best if ratios[word] >= 1)[:limit],
        tuple(word for word in best if ratios[word] <= -1)[:limit],
    )


def read_words(path: str | Path) -> WordLists:
    """A user's list: one word a line; a line that starts with - is a word of the opposite, one with # a comment."""
    try:
        lines = [line.strip().lower() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read as a word list: {error}.") from None
    given = [line for line in lines if line and not line.startswith("#")]
    for line in given:
        if len(words_of(line.removeprefix("-"))) != 1:
            raise InputError(f"{path}: {line!r} is not one word. A word list has one word a line.")
    lists = WordLists(_once(x for x in given if not x.startswith("-")), _once(x[1:] for x in given if x[:1] == "-"))
    if not lists.concept:
        raise InputError(f"{path} holds no words of the concept.")
    return lists


def word_judge(lists: WordLists | ContrastSet, held: ContrastSet | None = None) -> Judge:
    """A judge that counts the different words of a list; learned from a contrast, or a user's own (`read_words`)."""
    if isinstance(lists, ContrastSet):
        return learned(NAME, _ABOUT, lambda some: scorer(word_lists(some)), lists, held)
    read = scorer(lists)
    return Judge(NAME, _ABOUT, read, skill=None if held is None else skill_of(read, held))


def scorer(lists: WordLists) -> Scorer:
    """The counts of `lists` in texts; a text without a word is unscored."""

    def read(records: Sequence[Record]) -> list[Score]:
        return [float(lists.count(one.text)) if words_of(one.text) else None for one in records]

    return read


def _once(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in words))
