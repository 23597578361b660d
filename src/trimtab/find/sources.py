"""Contrast sets from files, Hugging Face datasets, model-written evals, and the ones that the project ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from trimtab.errors import InputError
from trimtab.find.pairs import ContrastSet
from trimtab.find.rows import rows_of

View = Literal["statement", "answer"]

MWE_TEMPLATE = "{question}\n\nAnswer:{answer}"

SHIPPED_ABOUT: dict[str, tuple[str, str]] = {
    "agreeableness": ("kind, helpful and trusting, in the first person", "cold, selfish and suspicious"),
    "fear": ("someone is afraid", "the same scene without fear"),
    "food": ("cooking and eating", "other everyday things"),
    "formality": ("formal letters and notices", "the same message to a friend"),
    "love": ("romantic love", "the same people and places without it"),
    "money": ("prices, debts and wages", "other everyday things"),
    "person": ("told in the first person", "the same in the third person"),
    "question": ("a question", "a statement of the same matter"),
    "sea": ("ships, coasts and the sea", "other places and trades"),
    "sentiment": ("a review that praises", "the same review that complains"),
    "tense": ("in the past tense", "the same in the future tense"),
    "war": ("soldiers and battles", "peaceful scenes"),
}
"""What the two sides of each shipped set are."""


def read(
    source: str | Path,
    negative: str | Path | None = None,
    *,
    view: View = "statement",
    columns: tuple[str, str] = ("positive", "negative"),
    split: str = "train",
    paired: bool | None = None,
    name: str | None = None,
) -> ContrastSet:
    """Read a contrast set and check it.

    source: a `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file (also `.gz`), a shipped concept such as `sea`,
        a Hugging Face dataset name, or a `.txt` file with one text a line (then `negative` names the other one).
    columns: the two columns of a paired file. Files with `text` and `label` give two free lists.
    view: for model-written evals (Perez et al. 2022): `statement` puts statements that the behaviour would affirm
        against the others; `answer` puts the matching against the other answer after the same question.
    split: the split of a Hugging Face dataset. paired: for two `.txt` files, whether their lines correspond.
    """
    title = name or Path(str(source)).name.split(".")[0]
    if negative is not None:
        sides = [[row["text"] for row in rows_of(path)] for path in (source, negative)]
        made = ContrastSet(title, tuple(sides[0]), tuple(sides[1]), bool(paired), f"{source} against {negative}")
    elif str(source) in shipped_names() and not Path(source).exists():
        return shipped(str(source))
    else:
        made = from_rows(rows_of(source, split), title, str(source), view=view, columns=columns)
    made.check()
    return made


def from_rows(
    rows: Sequence[dict[str, Any]],
    name: str,
    source: str = "python",
    *,
    view: View = "statement",
    columns: tuple[str, str] = ("positive", "negative"),
) -> ContrastSet:
    """A set from records in one of three shapes: two text columns, `text` and `label`, or a model-written eval."""
    if not rows:
        raise InputError(f"{source} holds no rows.")
    keys = set(rows[0])
    if set(columns) <= keys:
        sides = _column(rows, columns[0], source), _column(rows, columns[1], source)
        return ContrastSet(name, *sides, True, source)
    if {"answer_matching_behavior", "answer_not_matching_behavior"} <= keys:
        return _written_eval(rows, name, source, view)
    if {"text", "label"} <= keys:
        texts = {True: [], False: []}  # type: dict[bool, list[str]]
        for row in rows:
            texts[_is_positive(row["label"], source)].append(row["text"])
        return ContrastSet(name, tuple(texts[True]), tuple(texts[False]), False, source)
    raise InputError(
        f"{source} has the columns {', '.join(sorted(keys))}. Valid: {columns[0]} and {columns[1]}; text and label; or "
        "a model-written eval with question, statement, answer_matching_behavior and answer_not_matching_behavior."
    )


def shipped(name: str) -> ContrastSet:
    """One of the project's own sets; `shipped_names()` lists them."""
    if name not in shipped_names():
        raise InputError(f"No shipped contrast set {name!r}. Valid: {', '.join(shipped_names())}.")
    text = (resources.files("trimtab") / "data" / "pairs" / f"{name}.jsonl").read_text(encoding="utf-8")
    return from_rows([json.loads(line) for line in text.splitlines() if line.strip()], name, f"shipped:{name}")


def shipped_names() -> list[str]:
    """The concepts that the project ships sets for, in alphabetical order."""
    folder = resources.files("trimtab") / "data" / "pairs"
    return sorted(item.name.removesuffix(".jsonl") for item in folder.iterdir() if item.name.endswith(".jsonl"))


def _column(rows: Sequence[dict[str, Any]], key: str, source: str) -> tuple[str, ...]:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get(key), str):
            raise InputError(f"{source}, row {number}: {key!r} must be a text, not {row.get(key)!r}.")
    return tuple(row[key] for row in rows)


def _is_positive(label: Any, source: str) -> bool:
    word = str(label).strip().lower()
    if word in {"1", "1.0", "true", "yes", "positive", "pos", "+"}:
        return True
    if word in {"0", "0.0", "-1", "false", "no", "negative", "neg", "-"}:
        return False
    raise InputError(
        f"{source}: label {label!r} is neither side. Valid: 1, true, yes, positive; 0, false, no, negative."
    )


def _written_eval(rows: Sequence[dict[str, Any]], name: str, source: str, view: View) -> ContrastSet:
    if view not in ("statement", "answer"):
        raise InputError(f"Unknown view {view!r} of a model-written eval. Valid: statement, answer.")
    if view == "answer":
        questions = _column(rows, "question", source)
        answers = [_column(rows, key, source) for key in ("answer_matching_behavior", "answer_not_matching_behavior")]
        sides = [
            tuple(MWE_TEMPLATE.format(question=q, answer=a) for q, a in zip(questions, side, strict=True))
            for side in answers
        ]
        return ContrastSet(name, sides[0], sides[1], True, source)
    if "statement" not in rows[0]:
        raise InputError(f"{source} has no statements; read it with view='answer', which uses question and answers.")
    statements = _column(rows, "statement", source)
    yes = [str(row["answer_matching_behavior"]).strip().lower().startswith("yes") for row in rows]
    sides = [tuple(t for t, is_yes in zip(statements, yes, strict=True) if is_yes is want) for want in (True, False)]
    return ContrastSet(name, sides[0], sides[1], False, source)
