"""The one table and the one picture of a benchmark, from the scores in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from trimtab.errors import InputError
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.units import UNSTEERED, Cell
from trimtab.evidence.benchmark.work import scores_name
from trimtab.evidence.stats import Interval, interval
from trimtab.report.ranking import Dot, draw
from trimtab.scale.store import Store
from trimtab.spec import Spec

SCORES = ("score", "concept_score", "fluency_score")


class Row(Spec):
    """One method at one budget over all concepts: means over texts first, then over concepts, intervals over concepts.

    lift: score less that of the unsteered texts, paired by concept. kl: measured on the test prompts' own texts.
    cross_entropy: change on neutral texts. concepts: how many were scored; texts, unscored: counts; by_concept: the
    mean score of each; problems: concepts for which the method could not be made, whose texts are unsteered ones.
    """

    method: str
    budget: float | None
    score: Interval
    concept_score: Interval
    fluency_score: Interval
    lift: Interval
    kl: float | None
    cross_entropy: float | None
    concepts: int
    texts: int
    unscored: int
    by_concept: dict[str, float | None]
    problems: dict[str, str]


class Table(Spec):
    """All rows, the highest score first; the best unprompted baseline without features is what `find` has to beat."""

    rows: tuple[Row, ...]

    def markdown(self) -> str:
        """As a Markdown table."""
        head = ["method", "KL asked", "KL measured", "concept", "fluency", "score", "95 % interval", "over unsteered"]
        lines = [head, ["---", *["---:"] * (len(head) - 1)]]
        for row in self.rows:
            note = f" ({len(row.problems)} of {row.concepts} not made)" if row.problems else ""
            lines.append(
                [
                    row.method + note, _number(row.budget, "g"), _number(row.kl),
                    _number(row.concept_score.mean), _number(row.fluency_score.mean),
                    _number(row.score.mean, ".3f"), _span(row.score), _signed(row.lift),
                ]
            )  # fmt: skip
        return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def tabulate(store: Store, cells: Iterable[Cell]) -> Table:
    """The table of those of `cells` that have been judged so far. Raises `InputError` when there are none."""
    found: dict[tuple[str, float | None], dict[str, dict[str, Any]]] = {}
    for cell in cells:
        if store.exists(scores_name(cell)):
            scores = store.read_json(scores_name(cell))
            found.setdefault((cell.method, cell.budget), {})[cell.concept] = scores
    if (UNSTEERED, None) not in found:
        raise InputError(f"{store} has no scores yet: run the benchmark first.")
    plain = {name: _mean(one["score"]) for name, one in found[UNSTEERED, None].items()}
    rows = [_row(method, budget, mine, plain) for (method, budget), mine in found.items()]
    return Table(rows=tuple(sorted(rows, key=lambda row: -(row.score.mean or 0.0))))


def _row(
    method: str, budget: float | None, mine: Mapping[str, dict[str, Any]], plain: Mapping[str, float | None]
) -> Row:
    means = {key: {name: _mean(one[key]) for name, one in mine.items()} for key in SCORES}
    every = [score for one in mine.values() for score in one["score"]]
    lifts = [None if s is None or (u := plain.get(name)) is None else s - u for name, s in means["score"].items()]
    problems = {name: one["made"]["problem"] for name, one in mine.items() if one["made"] and one["made"]["problem"]}
    return Row(
        method=method,
        budget=budget,
        score=_over(means["score"]),
        concept_score=_over(means["concept_score"]),
        fluency_score=_over(means["fluency_score"]),
        lift=interval(lifts, list(mine)),
        kl=_mean([one["kl"] for one in mine.values()]),
        cross_entropy=_mean([one["cross_entropy"] for one in mine.values()]),
        concepts=len(mine),
        texts=len(every),
        unscored=sum(score is None for score in every),
        by_concept=means["score"],
        problems=problems,
    )


KINDS = {
    "control": "control", "prompt": "prompt", "feature": "one feature", "features": "features", "dense": "no SAE",
    "found": "find",
}  # fmt: skip


def picture(table: Table) -> bytes:
    """The score of every method at every budget with its interval over concepts, as an SVG."""
    dots = [
        Dot(
            row.method, KINDS[METHODS[row.method].kind], row.score.mean, row.score.low, row.score.high,
            "" if row.budget is None else f"KL {row.budget:g}",
        )
        for row in sorted(table.rows, key=lambda row: row.budget or 0.0)
        if row.score.mean is not None
    ]  # fmt: skip
    level = next((row.score.mean for row in table.rows if row.method == UNSTEERED), None)
    return draw(dots, "score: harmonic mean of concept and fluency, mean over concepts with 95 % interval", level)


def _over(values: Mapping[str, float | None]) -> Interval:
    return interval(list(values.values()), list(values), bounds=(0, 1))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else format(value, form)


def _span(value: Interval) -> str:
    return "" if value.low is None or value.high is None else f"{value.low:.3f} to {value.high:.3f}"


def _signed(value: Interval) -> str:
    if value.mean is None:
        return ""
    span = "" if value.low is None or value.high is None else f" ({value.low:+.3f} to {value.high:+.3f})"
    return f"{value.mean:+.3f}{span}"
