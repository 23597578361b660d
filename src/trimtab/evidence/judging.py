"""Asking judges: all texts at once, without saying what wrote them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.evidence.measure import Reading
from trimtab.evidence.values import Judge, JudgeNote
from trimtab.spec import finite
from trimtab.steer.generate import Record

if TYPE_CHECKING:
    from trimtab.lm.load import Model


def check_judges(judges: Sequence[Judge]) -> None:
    """Refuse judges whose columns could not be told apart."""
    names = [judge.name for judge in judges]
    if len(set(names)) != len(names):
        raise InputError(f"Judges must have distinct names, not {', '.join(names)}.")


def note_of(judge: Judge) -> JudgeNote:
    """What a judge says of itself, where it does (as those of `trimtab.evidence.judges` do)."""
    own = getattr(judge, "as_dict", None)
    return JudgeNote.parse(own()) if callable(own) else JudgeNote(name=judge.name)


def opinions(
    model: Model, judges: Sequence[Judge], readings: Sequence[Reading], prompts: Sequence[str]
) -> list[dict[str, float | None]]:
    """For each reading, the score of each judge by its name; None where it gave none."""
    if not judges:
        return [{} for _ in readings]
    records = [_record(model, reading, prompts) for reading in readings]
    columns = {judge.name: _scores(judge, records) for judge in judges}
    return [{name: column[row] for name, column in columns.items()} for row in range(len(readings))]


def _record(model: Model, reading: Reading, prompts: Sequence[str]) -> Record:
    text = reading.text
    return Record(
        prompt=prompts[text.prompt],
        text="".join(reading.tokens),
        token_ids=text.token_ids,
        generated_from=text.start,
        recipe=None,
        seed=text.seed,
        sample=text.sample,
        finished="eos" if text.token_ids[-1] in model.eos_ids else "length",
    )


def _scores(judge: Judge, records: Sequence[Record]) -> list[float | None]:
    scores = list(judge(records))
    if len(scores) != len(records):
        raise InputError(f"The judge {judge.name!r} gave {len(scores)} scores for {len(records)} texts.")
    return [None if s is None else finite(s, f"A score of the judge {judge.name!r}") for s in scores]
