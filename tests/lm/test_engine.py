"""Rows that enter, leave, break and are cancelled while the engine runs."""

from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError
from trimtab.lm.decode import Row, decode
from trimtab.lm.engine import Engine
from trimtab.lm.model import Model
from trimtab.lm.rows import Drawn
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling, Scope
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model

LONG = Sampling(max_new_tokens=12)
DIRECTION = torch.randn(16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("gemma3_text")


def engine(model: Model, slots: int = 4) -> Engine:
    return Engine(model, slots=slots, prompt=20, longest=60)


def row(model: Model, text: str, recipe: Recipe | None = None, **more: object) -> Row:
    return Row(tuple(model.encode(text)), stream_key(0, text, 0), LONG, recipe, **more)  # type: ignore[arg-type]


def run(one: Engine) -> dict[int, list[Drawn]]:
    out: dict[int, list[Drawn]] = {}
    while one.busy:
        for drawn in one.step():
            out.setdefault(drawn.handle, []).append(drawn)
    return out


def tokens(drawn: list[Drawn]) -> tuple[int | None, ...]:
    return tuple(one.token for one in drawn)


def alone(model: Model, one: Row) -> tuple[int, ...]:
    return decode(model, [one], batch_size=1)[0].tokens


def test_rows_that_join_later_write_what_they_write_alone(model: Model) -> None:
    recipes = [None, Recipe.vector(DIRECTION, 1, 2.0), Recipe.vector(-DIRECTION, 0, 0.5, unit="norm")]
    rows = [row(model, f"text {i}", recipes[i % 3]) for i in range(9)]
    one, seen = engine(model), {}
    for later in rows:
        one.add(later)
        for drawn in one.step():
            seen.setdefault(drawn.handle, []).append(drawn)
    for handle, rest in run(one).items():
        seen.setdefault(handle, []).extend(rest)
    assert [tokens(seen[i]) for i in range(9)] == [alone(model, r) for r in rows]
    assert not one.step()


def test_a_cancelled_row_frees_its_place_and_disturbs_nobody(model: Model) -> None:
    rows = [row(model, text) for text in ("one", "other", "third", "fourth")]
    one = engine(model, slots=2)
    handles = [one.add(r) for r in rows]
    first = one.step()
    assert [d.handle for d in first] == [0, 1]
    one.cancel(handles[0])  # under way
    one.cancel(handles[2])  # waiting
    one.cancel(handles[0])  # again: nothing
    rest = run(one)
    assert set(rest) == {1, 3}
    assert (first[1].token, *tokens(rest[1])) == alone(model, rows[1])
    assert tokens(rest[3]) == alone(model, rows[3])
    assert not one.active


@pytest.mark.parametrize("scope", [Scope(), Scope(prompt=False)], ids=["at the prompt", "while writing"])
def test_a_row_that_breaks_ends_alone(model: Model, scope: Scope) -> None:
    """Also the row that takes its place must not see what it left in the cache."""
    steep = Recipe.vector(torch.ones(16), 0, 3e38, scope=scope) + Recipe.vector(torch.ones(16), 0, 3e38, scope=scope)
    rows = [row(model, "fine"), row(model, "broken", steep), row(model, "good"), row(model, "a later one")]
    one = engine(model, slots=3)
    for each in rows:
        one.add(each)
    seen = run(one)
    assert seen[1][-1].finished == "error"
    assert "infinite" in seen[1][-1].error
    assert [tokens(seen[i]) for i in (0, 2, 3)] == [alone(model, rows[i]) for i in (0, 2, 3)]


def test_a_row_whose_logits_are_not_finite_ends_alone(model: Model) -> None:
    """A huge change passes the site and breaks the norm after it: found in the logits."""
    steep = Recipe.vector(torch.ones(16), 2, 1e38, scope=Scope(prompt=False))
    rows = [row(model, "broken", steep), row(model, "fine"), row(model, "waiting"), row(model, "and one more")]
    one = engine(model, slots=2)
    for each in rows:
        one.add(each)
    seen = run(one)
    for i in (1, 2, 3):
        assert tokens(seen[i]) == alone(model, rows[i])


def test_log_probabilities_are_those_of_the_model(model: Model) -> None:
    warm = Sampling(max_new_tokens=6, temperature=0.5, top_k=5)
    prompt = tuple(model.encode("abc"))
    one = engine(model)
    one.add(Row(prompt, 1, warm, likeliest=3))
    one.add(row(model, "neighbour"))
    drawn = run(one)[0]
    ids = torch.tensor([[*prompt, *(d.token for d in drawn)]])
    scores = model.hf(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
    for step, got in zip(scores, drawn, strict=True):
        assert got.logprob == pytest.approx(float(step[got.token]), abs=1e-4)
        assert [token for token, _ in got.top] == step.topk(3).indices.tolist()
        assert got.top[0][1] == pytest.approx(float(step.max()), abs=1e-4)


def test_the_record_says_what_was_edited(model: Model) -> None:
    recipe = Recipe.vector(DIRECTION, 1, 0.25, unit="norm") + Recipe.vector(DIRECTION, 0, scope=Scope(prompt=False))
    one = engine(model)
    one.add(row(model, "neighbour"))
    one.add(row(model, "abc", recipe, record=True))
    last = run(one)[1][-1]
    assert last.touched is not None
    first, second = last.touched["model.layers.0.output"], last.touched["model.layers.1.output"]
    # BOS is left alone, and the last of the 12 new tokens is not read
    assert (first.prompt_tokens, first.generated_tokens) == (0, 11)
    assert (second.prompt_tokens, second.generated_tokens) == (3, 11)
    assert second.ratio == pytest.approx(0.25, rel=1e-4)


def test_a_row_that_does_not_fit_is_refused(model: Model) -> None:
    one = engine(model)
    for prompt, new in (((), 5), ((1,) * 21, 5), ((1,) * 20, 41)):
        with pytest.raises(InputError, match="this engine takes 1 to 20, and 60 in all"):
            one.add(Row(prompt, 0, Sampling(max_new_tokens=new)))
    assert not one.busy
