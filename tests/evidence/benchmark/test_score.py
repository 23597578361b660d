"""From judges' scores to the numbers of the benchmark, and its units, concepts and table."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from trimtab.errors import FileError, InputError
from trimtab.evidence.benchmark.concepts import PHRASES, concepts_in, halves, shipped_concepts
from trimtab.evidence.benchmark.methods import METHODS, check_methods
from trimtab.evidence.benchmark.prompts import DEV, TEST
from trimtab.evidence.benchmark.score import Anchor, concept_score, fluency_score, scored
from trimtab.evidence.benchmark.table import picture, tabulate
from trimtab.evidence.benchmark.units import Cell, cells_of
from trimtab.evidence.judges.judge import Judge
from trimtab.find.overlap import near_duplicates
from trimtab.find.pairs import leaks
from trimtab.find.sources import shipped, shipped_names
from trimtab.scale.store import Store


def test_the_concept_is_as_sure_as_its_witnesses_together() -> None:
    assert concept_score([0.9]) == pytest.approx(0.8)
    assert concept_score([0.9, 0.9, None]) == pytest.approx(0.8)
    assert concept_score([0.9, 0.1]) == pytest.approx(0.0, abs=1e-12)
    assert concept_score([0.99, 0.4, 0.4]) == pytest.approx(
        2 / (1 + math.exp(-(math.log(99) - 2 * math.log(1.5)) / 3)) - 1
    )
    assert concept_score([0.2, 0.3]) == 0
    assert concept_score([None, None]) is None


def test_fluency_is_the_lower_of_likelihood_and_variety() -> None:
    anchors = {"log-likelihood": Anchor(-3.0, -9.0)}
    assert fluency_score({"log-likelihood": -6.0, "repetition": 0.0}, anchors) == pytest.approx(0.5)
    assert fluency_score({"log-likelihood": -2.0, "repetition": 0.2}, anchors) == pytest.approx(0.6)
    assert fluency_score({"log-likelihood": -1.0, "repetition": 0.7}, anchors) == 0
    assert fluency_score({"log-likelihood": -12.0, "repetition": 0.0}, anchors) == 0
    assert fluency_score({"log-likelihood": -3.0, "repetition": None}, anchors) is None
    both = anchors | {"independent log-likelihood": Anchor(-2.0, -4.0)}
    scores = {"log-likelihood": -3.0, "independent log-likelihood": -3.5, "repetition": 0.0}
    assert fluency_score(scores, both) == pytest.approx(0.25)


def test_a_text_needs_both() -> None:
    judges = {"classifier": Judge("classifier", "", lambda _: [], odds=(0.0, 1.0))}
    columns = {
        "classifier": [20.0, 20.0, -1.0, None],
        "log-likelihood": [-3.0, -9.0, -3.0, -3.0],
        "repetition": [0.0] * 4,
    }
    found = scored(columns, judges, {"log-likelihood": Anchor(-3.0, -9.0)})
    assert found[0].score == pytest.approx(1.0)
    assert [one.score for one in found[1:]] == [0.0, 0.0, None]


def test_cells_and_where_they_are_kept() -> None:
    cells = cells_of(["sea", "my--own"], ["unsteered", "random", "prompt in words"], [0.1, 0.5])
    assert [cell.id for cell in cells] == [
        "sea--unsteered", "sea--random@0.1", "sea--random@0.5", "sea--prompt-in-words",
        "my-own--unsteered", "my-own--random@0.1", "my-own--random@0.5", "my-own--prompt-in-words",
    ]  # fmt: skip
    with pytest.raises(InputError, match="different numbers above 0"):
        cells_of(["sea"], ["random"], [0.5, 0.5])
    with pytest.raises(InputError, match="only in their punctuation"):
        cells_of(["a b", "a-b"], ["random"], [0.5])
    with pytest.raises(InputError, match="Unknown method 'caa'"):
        check_methods(["caa"])
    assert check_methods([]) == tuple(METHODS)


def test_every_shipped_concept_has_words_and_two_halves_that_share_nothing() -> None:
    assert set(PHRASES) == set(shipped_names())
    for concept in shipped_concepts():
        assert not leaks(concept.texts, concept.held)
        assert len(concept.texts) + len(concept.held) == len(shipped(concept.name))
        assert abs(len(concept.texts) - len(concept.held)) <= 3
    assert halves(shipped("sea"))[0].digest == halves(shipped("sea"))[0].digest


def test_prompts_differ_between_the_lists() -> None:
    assert min(len(DEV), len(TEST)) >= 10
    assert not near_duplicates([*DEV, *TEST])


def test_concepts_of_a_folder(tmp_path: Path) -> None:
    for name in ("sea", "war"):
        shipped(name).save(tmp_path / f"{name} mine.jsonl")
    (tmp_path / "phrases.json").write_text(json.dumps({"war mine": "full of guns"}), encoding="utf-8")
    found = concepts_in(tmp_path)
    assert [(one.name, one.phrase) for one in found] == [("sea mine", "about sea mine"), ("war mine", "full of guns")]
    assert found[0].digest == shipped_concepts(["sea"])[0].digest
    with pytest.raises(FileError, match="not a folder"):
        concepts_in(tmp_path / "none")
    (tmp_path / "phrases.json").write_text("[]", encoding="utf-8")
    with pytest.raises(FileError, match="names and phrases"):
        concepts_in(tmp_path)


def judged(store: Store, cell: Cell, scores: list[float | None]) -> None:
    columns = dict.fromkeys(("score", "concept_score", "fluency_score"), scores)
    made = {"problem": "it found nothing" if cell.concept == "love" else None} if cell.budget else None
    about = {"made": made, "kl": cell.budget, "cross_entropy": None}
    store.write_json(f"scores/{cell.id}.json", {**cell.__dict__, **columns, **about})


def test_the_table_counts_concepts_not_texts(tmp_path: Path) -> None:
    store, names = Store(str(tmp_path)), ["fear", "food", "love", "money", "sea", "war"]
    for i, name in enumerate(names):
        judged(store, Cell(name, "unsteered"), [0.1, 0.1])
        judged(store, Cell(name, "find", 0.5), [0.5 + i / 100, None] if i else [0.5] * 9)
    cells = cells_of(names, ["find"], [0.5])
    table = tabulate(store, cells)
    first, last = table.rows
    assert (first.method, last.method) == ("find", "unsteered")
    assert first.score.mean == pytest.approx(0.525)
    assert first.score.low is not None
    assert 0.5 < first.score.low < 0.525
    assert first.lift.mean == pytest.approx(0.425)
    assert (first.concepts, first.texts, first.unscored) == (6, 19, 5)
    assert first.problems == {"love": "it found nothing"}
    assert first.by_concept["war"] == pytest.approx(0.55)
    lines = table.markdown().splitlines()
    assert lines[2].startswith("| find (1 of 6 not made) | 0.5 | 0.50 | 0.53 ")
    svg = picture(table).decode()
    assert svg == picture(table).decode()
    assert "unsteered" in svg
    assert "KL 0.5" in svg
    with pytest.raises(InputError, match="no scores yet"):
        tabulate(store / "none", cells)
