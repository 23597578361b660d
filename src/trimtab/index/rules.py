"""Labels by rule: words that tell a feature's texts from other texts.

A label is `ON; after AFTER; near NEAR → PROMOTED`, each a list of words and each left out when it is empty: the feature
fires on the words of ON, on the token after those of AFTER, and somewhere near those of NEAR. Words of ON come from the
counts of the whole corpus: those that cover most of the feature's firing for the fewest texts in which it does not
fire. The others are chosen one by one, each the one that adds most to the balanced accuracy of "the text has one of
these words", with the feature's own examples of all strengths against examples of features drawn at random. So the
label says what it can be judged by, without a language model and without network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from trimtab.index.records import Lens, Word
from trimtab.index.store import Index

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARROW = " → "
_AFTER, _NEAR = "after ", "near "
_BEFORE_AT, _AFTER_AT = 12, 11  # tokens around the firing one that an example counts with
_WIDTH = _BEFORE_AT + 1 + _AFTER_AT
_LEAST, _LEAST_AROUND = 0.0025, 0.06  # balanced accuracy that a word must add: one on which it fires, another one
_MOST_ON, _MOST = 8, 10
_POOL = 400
_NAMES = {",": "(comma)", ";": "(semicolon)", "→": "(arrow)"}


@dataclass(frozen=True)
class Window:
    """The tokens around an example, and on which of them the feature fires."""

    tokens: tuple[str, ...]
    fires: tuple[bool, ...]


@dataclass(frozen=True)
class Pool:
    """Windows of examples of all features, as the words that each has [windows]: what a label must not match."""

    has: Mapping[str, NDArray[np.bool_]]
    size: int


def rule_label(words: Sequence[Word], lens: Lens | None, chosen: Mapping[str, str] | None = None, most: int = 4) -> str:
    """The label of `chosen` words (each "on", "after" or "near"), or of the firing tokens when there are none.

    Firing tokens are ranked by count squared over how often the token was read, so that a word on which it always
    fires comes before a common one on which it sometimes does. "(never fires)" and no arrow where there is nothing.
    """
    chosen = chosen or {}
    ranked = sorted(words, key=lambda w: (-(w.count**2) / max(1, w.seen), w.token))
    on = [word for word, how in chosen.items() if how == "on"] if chosen else _first((w.text for w in ranked), most)
    parts = [", ".join(on)] if on else []
    for how, name in (("after", _AFTER), ("near", _NEAR)):
        if found := [word for word, one in chosen.items() if one == how]:
            parts.append(name + ", ".join(found))
    left = "; ".join(parts) or "(never fires)"
    writes = _first((text for text, _ in lens.promoted), most) if lens else []
    return f"{left}{ARROW}{', '.join(writes)}" if writes else left


def matches(label: str, tokens: Sequence[str]) -> bool:
    """Whether tokens of a text have one of the words that a rule's label names before the arrow."""
    here = [names(token) for token in tokens]
    present = set().union(*here)
    before = set().union(*here[:-1])
    for part in label.partition(ARROW)[0].split("; "):
        how = next((how for how in (_AFTER, _NEAR) if part.startswith(how)), "")
        if set(part[len(how) :].split(", ")) & (before if how == _AFTER else present):
            return True
    return False


def pool(index: Index) -> Pool:
    """Windows of `_POOL` examples, random ones where the index has them, of features spread over all."""
    kinds = {row["kind"] for row in index.query("select distinct kind from examples")}
    rows = index.query(
        "select tokens, examples.at from examples where kind = ? "
        "order by rank, feature::bigint * 2654435761 % 4294967296 limit ?",  # Knuth's multiplicative hash
        ["random" if "random" in kinds else "top", _POOL],
    )
    has: dict[str, NDArray[np.bool_]] = {}
    for i, row in enumerate(rows):
        for word in set().union(*map(names, index.texts(row["tokens"][_window(row["at"])]))):
            has.setdefault(word, np.zeros(len(rows), dtype=bool))[i] = True
    return Pool(has, len(rows))


def choose(words: Sequence[Word], count: int, tokens: int, mine: Sequence[Window], others: Pool) -> dict[str, str]:
    """The words of a label, each with "on", "after" or "near".

    `words`: what the feature fires on, of `count` firings on `tokens` tokens that were read. `mine`: windows of its
    examples; a word that only one of them has is not chosen from them.
    """
    chosen = dict.fromkeys(_on(words, count, tokens), "on")
    has, where = _places(mine)
    nowhere = np.zeros(others.size, dtype=bool)
    candidates = sorted(word for word, rows in has.items() if rows.sum() > 1 or word in chosen)
    mine_has = np.array([has[word] for word in candidates]).reshape(len(candidates), len(mine))
    theirs = np.array([others.has.get(word, nowhere) for word in candidates]).reshape(len(candidates), others.size)
    known = [i for i, word in enumerate(candidates) if word in chosen]
    hits, false = mine_has[known].any(0), theirs[known].any(0)
    while candidates and len(chosen) < _MOST:
        # A word was picked because these windows have it, so one of them does not count for it.
        gain = ((mine_has & ~hits).sum(1) - 1) / len(mine) - (theirs & ~false).sum(1) / max(1, others.size)
        best = int(gain.argmax())
        if gain[best] / 2 < _LEAST_AROUND:
            break
        chosen[candidates[best]] = where[candidates[best]].most_common(1)[0][0]
        hits, false = hits | mine_has[best], false | theirs[best]
    return chosen


def _on(words: Sequence[Word], count: int, tokens: int) -> list[str]:
    """The firing words whose share of the firing is worth the texts that have them without firing, best first."""
    fires: Counter[str] = Counter()
    quiet: Counter[str] = Counter()
    for word in words:
        for name in names(word.text):
            if not name.startswith("(") or len(names(word.text)) == 1:
                fires[name] += word.count
                quiet[name] += word.seen - word.count
    gain = {name: fires[name] / count + math.expm1(-_WIDTH * quiet[name] / tokens) for name in fires}
    return sorted((name for name in gain if gain[name] / 2 >= _LEAST), key=lambda name: (-gain[name], name))[:_MOST_ON]


def _places(mine: Sequence[Window]) -> tuple[dict[str, NDArray[np.bool_]], dict[str, Counter[str]]]:
    """Which windows have each word, and how it stands to the firing tokens of each."""
    has: dict[str, NDArray[np.bool_]] = {}
    where: dict[str, Counter[str]] = {}
    for i, window in enumerate(mine):
        here = [names(token) for token in window.tokens]
        on = set().union(*(one for one, fires in zip(here, window.fires, strict=True) if fires))
        before = set().union(*(one for one, fires in zip(here, window.fires[1:], strict=False) if fires))
        for word in set().union(*here):
            if word not in has:
                has[word], where[word] = np.zeros(len(mine), dtype=bool), Counter()
            has[word][i] = True
            how = "on" if word in on else "after" if word in before else "near"
            where[word][how] += 1
    return has, where


def windows(index: Index, features: Sequence[int]) -> dict[int, list[Window]]:
    """The tokens around the examples of each feature, one for each context."""
    marks = ", ".join("?" * len(features))
    rows = index.query(
        f"select feature, tokens, values, examples.at from examples where feature in ({marks}) "
        "qualify row_number() over (partition by feature, context order by position) = 1 order by feature, context",
        list(features),
    )
    found: dict[int, list[Window]] = {feature: [] for feature in features}
    for row in rows:
        span = _window(row["at"])
        tokens = tuple(index.texts(row["tokens"][span]))
        found[row["feature"]].append(Window(tokens, tuple(value > 0 for value in row["values"][span])))
    return found


@lru_cache(maxsize=1 << 18)
def names(token: str) -> frozenset[str]:
    """What a label may call a token: itself in lower case without spaces, and its kind in brackets."""
    word = token.strip()
    if not word:
        return frozenset(["(line break)" if "\n" in token else "(spaces)"])
    if not word.isprintable() or "\ufffd" in word:
        return frozenset(["(part of a character)"])
    found = {_NAMES.get(word, word.lower().replace(",", "").replace(";", "").replace("→", ""))}
    if word.isnumeric():
        found.add("(number)")
    elif word[0].isalpha():
        if not word.isascii():
            found.add("(letters beyond a-z)")
        if word[0].isupper():
            found.add("(capital)")
        if token[0].isalpha() and not word[0].isupper():
            found.add("(rest of a word)")
    return frozenset(found - {""})


def _window(at: int) -> slice:
    return slice(max(0, at - _BEFORE_AT), at + 1 + _AFTER_AT)


def _first(tokens: Iterable[str], most: int) -> list[str]:
    """The first tokens that are words, each once."""
    plain = (next((n for n in sorted(names(token)) if not n.startswith("(")), "") for token in tokens)
    return list(dict.fromkeys(word for word in plain if word))[:most]
