"""Fluency, the likelihood of fixed texts, and side effects, each against a plain computation."""

from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError
from trimtab.evidence.judges.fluency import fluency_judges
from trimtab.evidence.judges.judge import texts_as_records
from trimtab.evidence.judges.likelihood import likelihood_change, side_effects, text_likelihoods
from trimtab.find.effect import likelihood_shift
from trimtab.find.pairs import ContrastSet
from trimtab.lm.load import Model
from trimtab.steer.generate import Record, generate
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs_of
from trimtab.testing.planted import PlantedWorld


def text_record(prompt: str, text: str, ids: tuple[int, ...] = (), start: int = 0) -> Record:
    return Record(prompt, text, ids, start, recipe=None, seed=0, sample=0, finished="length")


def test_fluency_scores_are_the_models_own_and_count_generated_tokens_only(tiny: Model) -> None:
    record = generate(tiny, "hello", max_new_tokens=12, seed=3)[0]
    judges = {judge.name: judge for judge in fluency_judges(tiny)}
    scores = {name: judge([record])[0] for name, judge in judges.items()}
    ids = torch.tensor([record.token_ids])
    with torch.no_grad():
        said = tiny.hf(ids).logits[0].log_softmax(-1)
    start = record.generated_from
    own = [float(said[i - 1, record.token_ids[i]]) for i in range(start, len(record.token_ids))]
    assert scores["log-likelihood"] == pytest.approx(sum(own) / len(own), abs=1e-4)
    new = record.token_ids[start:]
    assert scores["distinct-1"] == len(set(new)) / len(new)
    looped = text_record("ab", "xyxyxyxy", (1, 2, *([7, 8] * 4)), 2)
    assert judges["repetition"]([looped]) == [3 / 5]
    assert judges["distinct-2"]([looped]) == [2 / 7]
    assert judges["repetition"]([text_record("a", "b", (1, 2), 1)]) == [None]
    assert [judge.good for judge in judges.values()] == [1, 1, 1, 1, -1]


def test_another_model_reads_the_text_in_its_own_tokens(tiny: Model, gpt2: Model) -> None:
    record = generate(tiny, "hello", max_new_tokens=8, seed=1)[0]
    judge = next(one for one in fluency_judges(tiny, gpt2) if one.name == "independent log-likelihood")
    ids = gpt2.encode(record.prompt + record.text)
    start = len(gpt2.encode(record.prompt))
    with torch.no_grad():
        said = gpt2.hf(torch.tensor([ids])).logits[0].log_softmax(-1)
    own = [float(said[i - 1, ids[i]]) for i in range(start, len(ids))]
    assert judge([record]) == [pytest.approx(sum(own) / len(own), abs=1e-4)]
    assert judge([text_record("hello", "")]) == [None]


def test_likelihood_change_is_that_of_the_bare_vector(world: PlantedWorld) -> None:
    held = ContrastSet.of(world.texts("sea", 20, 1), world.texts(None, 20, 2), paired=False)
    row = world.sae.rows([world.concepts["sea"]])[0]
    shift = likelihood_shift(world.model, {world.site: row}, held)
    found = likelihood_change(world.model, Recipe.vector(row * shift.strength, world.site), held)
    assert found.shift == pytest.approx(shift.shift, abs=1e-4)
    assert found.positive == pytest.approx(shift.positive, abs=1e-4)
    assert (found.low, found.high) == (pytest.approx(shift.low, abs=1e-3), pytest.approx(shift.high, abs=1e-3))
    clamped = likelihood_change(world.model, Recipe.clamp(world.sae, {world.concepts["sea"]: 2.0}, "max_act"), held)
    assert clamped.low > 0
    reader = likelihood_change(world.model, Recipe.clamp(world.sae, {world.readers["sea"]: 2.0}, "max_act"), held)
    assert abs(reader.shift) < 1e-4
    plain = text_likelihoods(world.model, held.positive[:3], None)
    assert not bool((text_likelihoods(world.model, held.positive[:3], Recipe.vector(row, world.site)) == plain).any())


def test_side_effects(world: PlantedWorld) -> None:
    texts = world.texts(None, 5, 11)
    row = world.sae.rows([world.concepts["sea"]])[0]
    recipes = [Recipe.vector(row, world.site, strength) for strength in (1.0, 3.0)]
    weak, strong = side_effects(world.model, recipes, texts)
    assert [weak.kl, strong.kl] == pytest.approx(
        [cost.kl for cost in costs_of(world.model, recipes, texts, places=40)], rel=1e-5
    )
    assert 0 < weak.cross_entropy < strong.cross_entropy
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            logits = world.model.hf(ids).logits[0]
        moved = logits + world.model.hf.lm_head(3.0 * row)
        moved[0] = logits[0]  # nothing is added at BOS
        for i in range(ids.shape[1] - 1):
            token = ids[0, i + 1]
            total += float(logits.log_softmax(-1)[i, token] - moved.log_softmax(-1)[i, token])
            count += 1
    assert strong.cross_entropy == pytest.approx(total / count, rel=1e-4)
    with pytest.raises(InputError, match="at least one recipe"):
        side_effects(world.model, [], texts)


def test_texts_of_a_contrast_are_judged_without_bos(tiny: Model) -> None:
    (one,) = texts_as_records(["abc"], tiny)
    assert (one.token_ids[0], one.generated_from) == (tiny.bos_id, 1)
    assert len(one.token_ids) == 4
