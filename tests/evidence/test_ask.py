"""Answers to model-written questions: the arithmetic against a naive forward pass, and planted liking for an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trimtab.errors import InputError
from trimtab.evidence.ask import answer_odds, ask, verdict_of
from trimtab.evidence.questions import Question, balanced, question, read_questions
from trimtab.evidence.stats import interval
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model
from trimtab.testing.planted import PlantedWorld, planted_world


def _row(yes: str, no: str, text: str = "Do you like it?", **more: Any) -> dict[str, Any]:
    return {"question": text, "answer_matching_behavior": yes, "answer_not_matching_behavior": no, **more}


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


def _planted(world: PlantedWorld, n: int = 12) -> list[Question]:
    """ "the cat saw the" is answered by a sea word or a plain one; half of the questions match each."""
    nouns, sea = ("cat", "dog", "tree"), world.words["sea"]
    made = []
    for i in range(n):
        kind = "sea" if i % 2 else "plain"
        pair = (f" {sea[i % len(sea)]}", f" {nouns[i % 3]}")
        yes, no = pair if kind == "sea" else pair[::-1]
        prompts = (f"the {nouns[i % 3]} saw the", f"a {nouns[(i + 1) % 3]} saw a")
        made.append(Question(i, prompts, (yes, yes), (no, no), kind))
    return made


def test_odds_are_those_of_a_plain_forward_pass() -> None:
    model = tiny_model("gemma3_text", d_model=16)
    asked = [question(_row(" Yes", " No", "Is it so? " + "x" * i), i) for i in range(5)]
    recipe = Recipe.vector(torch.randn(16, generator=torch.Generator().manual_seed(0)), 1, 2.0)
    odds, mass = answer_odds(model, recipe, asked, [-1.0, 0.0, 1.5])
    for i, one in enumerate(asked):
        for order in (0, 1):
            ids = torch.tensor([model.encode(one.prompts[order])])
            yes, no = (model.encode(one.prompts[order] + answer)[ids.shape[1] :] for answer in (" Yes", " No"))
            ids = torch.cat([ids, torch.tensor([yes[:1]])], 1)  # the space is a token of its own here, and shared
            for k, factor in enumerate((-1.0, 0.0, 1.5)):
                with torch.no_grad(), model.edited(recipe * factor if factor else None):
                    said = model.hf(ids, use_cache=False).logits[0, -1].log_softmax(0)
                assert odds[i, order, k] == pytest.approx(float(said[yes[1]] - said[no[1]]), abs=1e-4)
                assert mass[i, order, k] == pytest.approx(float(said[[yes[1], no[1]]].exp().sum()), abs=1e-4)


def test_a_recipe_that_raises_one_answer_is_not_taken_for_the_behaviour(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 3.0}, unit="raw")
    found = ask(world.model, recipe, _planted(world), (-1, 1))
    assert found.verdict == "moves one answer, whatever is asked"
    assert found.by_kind["sea"].low is not None
    assert found.by_kind["sea"].low > 0.5
    assert found.by_kind["plain"].mean == pytest.approx(-(found.by_kind["sea"].mean or 0), rel=0.3)
    assert found.slope.low is not None
    assert found.slope.high is not None
    kinds = [one.high - one.low for one in found.by_kind.values() if one.high is not None and one.low is not None]
    assert found.slope.high - found.slope.low < max(kinds)  # what lies between the kinds is not chance
    only = ask(world.model, recipe, [one for one in _planted(world, 24) if one.kind == "sea"], (-1, 1))
    assert only.verdict == "moves the answers"
    changes = [point.change.mean for point in only.points]
    assert changes == sorted(changes)  # type: ignore[type-var]
    assert changes[1] == 0
    assert only.slope.mean == pytest.approx(np.polyfit(only.strengths, [p.log_odds.mean for p in only.points], 1)[0])
    assert (
        ask(world.model, -1.0 * recipe, [o for o in _planted(world, 24) if o.kind == "sea"], (1,)).verdict == "reversed"
    )


def test_no_effect_is_called_so() -> None:
    none, up, down = (
        interval(list(v), range(6)) for v in ([-1, 1, -2, 2, 1, -1], [1.0, 2, 1, 2, 1, 2], [-1.0, -2, -1, -2, -1, -2])
    )
    assert verdict_of(none, [none, none]) == "no effect"
    assert verdict_of(up, [up, none]) == "moves the answers"
    assert verdict_of(up, [up, down]) == "moves one answer, whatever is asked"


def test_answers_are_named_in_both_orders_and_choices_change_places() -> None:
    named = question(_row(" No", " Yes"))
    assert named.prompts == (
        "Do you like it?\n\nAnswer No or Yes.\n\nAnswer:",
        "Do you like it?\n\nAnswer Yes or No.\n\nAnswer:",
    )
    assert (named.matching, named.other, named.kind) == ((" No", " No"), (" Yes", " Yes"), "No")
    listed = question(_row(" (A)", " (B)", "Which?\n\nChoices:\n (A) to stay\n (B) to leave"))
    assert listed.prompts[0] == "Which?\n\nChoices:\n (A) to stay\n (B) to leave\n\nAnswer:"
    assert listed.prompts[1] == "Which?\n\nChoices:\n (A) to leave\n (B) to stay\n\nAnswer:"
    assert listed.matching == (" (A)", " (B)")
    assert listed.other == (" (B)", " (A)")


def test_questions_are_balanced_and_the_same_for_a_seed() -> None:
    many = [question(_row(*((" Yes", " No") if i % 4 else (" No", " Yes"))), i) for i in range(40)]
    chosen = balanced(many, 12, seed=1)
    assert [one.kind for one in chosen].count("Yes") == [one.kind for one in chosen].count("No") == 6
    assert chosen == balanced(many, 12, seed=1)
    assert len(balanced(many, None)) == 20


def test_statements_are_read_on_their_own_side(world: PlantedWorld) -> None:
    texts = world.texts("sea", 8, seed=5), world.texts(None, 8, seed=6)
    kinds = ((" Yes", " No"), (" No", " Yes"))
    asked = [
        Question(i, ("the cat saw the",) * 2, (" boat",) * 2, (" cat",) * 2, kinds[side][0].strip(), text)
        for side in (0, 1)
        for i, text in enumerate(texts[side], start=8 * side)
    ]
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 2.0}, unit="raw")
    found = ask(world.model, recipe, asked, (-1, 1))
    assert [one.strength for one in found.statements] == [-1, 1]
    assert found.statements[1].low > 0 > found.statements[0].high
    assert ask(world.model, recipe, asked, (1,), statements=0).statements == ()


@pytest.mark.parametrize(
    ("row", "words"),
    [(_row(" Yes", " Yes"), "must differ"), (_row(" Yes", None), "must be texts")],  # type: ignore[arg-type]
)
def test_bad_rows_are_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        question(row, 3, "some.jsonl")


def test_files_that_are_no_evals_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({"positive": "a", "negative": "b"}) + "\n")
    with pytest.raises(InputError, match="lacks question"):
        read_questions(file)
    file.write_text(json.dumps(_row(" Yes", " No")) + "\n")
    assert read_questions(file)[0].kind == "Yes"


def test_nothing_to_ask_is_refused(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {0: 1.0}, unit="raw")
    with pytest.raises(InputError, match="at least one question"):
        ask(world.model, recipe, [], (1,))
    with pytest.raises(InputError, match="not 0"):
        ask(world.model, recipe, _planted(world), (0,))
