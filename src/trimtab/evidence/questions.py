"""Model-written evals as prompts: every question in two orders of its answers, so that a liking for the first or the
last answer cancels.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import InputError
from trimtab.find.rows import rows_of

KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")

_CHOICE = re.compile(r"^(?P<lead>\s*\((?P<letter>[A-Z])\))(?P<text>[^\n]*)$", re.MULTILINE)


@dataclass(frozen=True)
class Question:
    """One question of an eval. prompts: the two orders. matching, other: the answers, one for each prompt.

    kind: the matching answer in the first order, such as `Yes`. statement: what the behaviour would say (or, where the
    matching answer is no, would not say), None where the eval has none.
    """

    number: int
    prompts: tuple[str, str]
    matching: tuple[str, str]
    other: tuple[str, str]
    kind: str
    statement: str | None = None


def read_questions(source: str | Path) -> list[Question]:
    """The questions of a model-written eval in any file that contrast sets are read from (Perez et al. 2022)."""
    rows = rows_of(source)
    missing = [key for key in KEYS if rows and key not in rows[0]]
    if not rows or missing:
        raise InputError(
            f"{source} is no model-written eval: "
            + (f"it lacks {', '.join(missing)}." if rows else "it holds no rows.")
        )
    return [question(row, number, str(source)) for number, row in enumerate(rows)]


def question(row: dict[str, Any], number: int = 0, source: str = "the eval") -> Question:
    """A question from one record. Choices such as `(A) Yes` change places; answers without any are named in turn."""
    text, yes, no = (row.get(key) for key in KEYS)
    if not (isinstance(text, str) and isinstance(yes, str) and isinstance(no, str) and yes.strip() != no.strip()):
        raise InputError(f"{source}, row {number + 1}: {', '.join(KEYS)} must be texts, and the answers must differ.")
    statement = row.get("statement")
    kind = yes.strip().strip("()")
    letters = {answer.strip().strip("()"): answer for answer in (yes, no)}
    found = {match["letter"]: match for match in _CHOICE.finditer(text)}
    if set(letters) <= set(found) and len(letters) == 2:
        a, b = (found[letter] for letter in letters)
        swapped = _exchange(text, (a.start("text"), a.end("text")), (b.start("text"), b.end("text")))
        prompts, first, second = (f"{text}\n\nAnswer:", f"{swapped}\n\nAnswer:"), (yes, no), (no, yes)
    else:
        named = [f"{text}\n\nAnswer {one.strip()} or {two.strip()}.\n\nAnswer:" for one, two in ((yes, no), (no, yes))]
        prompts, first, second = (named[0], named[1]), (yes, yes), (no, no)
    return Question(number, prompts, first, second, kind, statement if isinstance(statement, str) else None)


def balanced(questions: Sequence[Question], limit: int | None, seed: int = 0) -> list[Question]:
    """At most `limit` questions drawn at random, as many of each kind as there are of the rarest, in their order.

    Without the same number of each kind, steering that raises one answer whatever is asked would look like behaviour.
    """
    kinds: dict[str, list[Question]] = {}
    for one in questions:
        kinds.setdefault(one.kind, []).append(one)
    each = min(len(some) for some in kinds.values())
    if limit is not None:
        each = min(each, max(1, limit // len(kinds)))
    draw = random.Random(f"questions {seed}")
    chosen = [one for kind in sorted(kinds) for one in draw.sample(kinds[kind], each)]
    return sorted(chosen, key=lambda one: one.number)


def _exchange(text: str, a: tuple[int, int], b: tuple[int, int]) -> str:
    first, second = sorted((a, b))
    return (
        text[: first[0]] + text[second[0] : second[1]] + text[first[1] : second[0]] + text[first[0] : first[1]]
        + text[second[1] :]
    )  # fmt: skip
