"""Texts of the model's own: its unsteered continuations of the neutral beginnings, written once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.errors import UnsupportedError
from trimtab.lm.decode import Row, decode
from trimtab.lm.load import Model
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling
from trimtab.steer import own
from trimtab.steer.dose import choose, measure_dose
from trimtab.steer.dose_texts import NEW_TOKENS
from trimtab.steer.kl import PROMPT_TOKENS
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.own import own_texts
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world(0)


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    own._known.clear()
    yield tmp_path
    own._known.clear()


def no_writing(*_: object) -> None:
    raise AssertionError("the texts were written again")


def test_every_text_is_the_models_own_way_on_from_a_neutral_beginning(tiny: Model) -> None:
    texts = own_texts(tiny)
    assert len(texts) == len(NEUTRAL)
    for text, neutral in zip(texts[:4], NEUTRAL, strict=False):
        beginning = tuple(tiny.encode(neutral)[:PROMPT_TOKENS])
        row = Row(beginning, stream_key(0, neutral, 0), Sampling(max_new_tokens=NEW_TOKENS))
        (alone,) = decode(tiny, [row], batch_size=1, stops=tiny.eos_ids)
        assert text == tiny.decode(beginning + alone.tokens)
        assert text != neutral[: len(text)]


def test_they_are_written_once_for_a_model(
    tiny: Model, gpt2: Model, nothing_is_known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_texts(tiny)
    assert own_texts(gpt2) != first
    own._known.clear()
    with monkeypatch.context() as patch:
        patch.setattr(own, "write", no_writing)
        assert own_texts(tiny) == first
    own._known.clear()
    for path in nothing_is_known.rglob("*.json"):
        path.write_text('["damaged"')
    assert own_texts(tiny) == first


def test_a_cache_that_cannot_be_written_only_costs_time(
    tiny: Model, nothing_is_known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = own_texts(tiny)
    own._known.clear()
    (nothing_is_known / "a-file").write_text("")
    monkeypatch.setenv("TRIMTAB_CACHE", str(nothing_is_known / "a-file"))
    assert own_texts(tiny) == first
    monkeypatch.setattr(own, "write", no_writing)
    assert own_texts(tiny) == first


def test_a_steered_model_does_not_write_them(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    with world.model.edited(recipe), pytest.raises(UnsupportedError):
        own_texts(world.model)


def test_doses_are_chosen_on_them(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    texts = own_texts(world.model)
    assert costs(world.model, recipe, [0.5, 2.0]) == costs(world.model, recipe, [0.5, 2.0], texts)
    assert costs(world.model, recipe, [2.0]) != costs(world.model, recipe, [2.0], NEUTRAL)
    chosen = choose(world.model, recipe, "kl=0.3")
    assert costs(world.model, recipe, [chosen.factor], texts)[0].kl == pytest.approx(0.3, rel=0.03)
    curve = measure_dose(world.model, recipe, [1.0], texts=2)
    assert curve.at(1.0).kl == costs(world.model, recipe, [1.0], texts)[0].kl
    neutral = measure_dose(world.model, recipe, [1.0], NEUTRAL, texts=2)
    assert curve.unsteered == neutral.unsteered  # what is written goes on from the same beginnings
