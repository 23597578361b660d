"""Likelihood shifts at a matched KL, measured and to first order."""

from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError
from trimtab.find import effect
from trimtab.find.effect import likelihood_shift, matched_strength, neutral, text_likelihoods
from trimtab.find.gain import curvature, gains, likelihood_gradient
from trimtab.find.pairs import ContrastSet
from trimtab.testing.planted import PlantedWorld


def test_likelihoods_are_the_models_own(world: PlantedWorld, sea: ContrastSet) -> None:
    few = sea.take(4)
    found = text_likelihoods(world.model, few)
    for value, text in zip(found, (*few.positive, *few.negative), strict=True):
        ids = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            loss = world.model.hf(ids, labels=ids).loss
        assert float(value) == pytest.approx(-float(loss), abs=1e-5)


def test_the_matched_strength_reaches_its_kl(world: PlantedWorld) -> None:
    for feature in (*world.concepts.values(), 0):
        row = {world.site: world.sae.rows([feature])[0]}
        for kl in (0.02, 0.3):
            factor, reached = matched_strength(world.model, row, kl)
            assert reached == pytest.approx(kl, rel=0.1)
            doubled, again = matched_strength(world.model, {world.site: row[world.site] * 2}, kl)
            assert doubled == pytest.approx(factor / 2, rel=0.15)
            assert again == pytest.approx(kl, rel=0.1)


def test_the_kl_is_the_mean_over_neutral_tokens(world: PlantedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("the cat found a stone .", "a dog")
    monkeypatch.setattr(effect, "NEUTRAL", texts)
    row = world.sae.rows([world.concepts["sea"]])[0]
    factor, reached = matched_strength(world.model, {world.site: row}, 0.2)
    total, count = 0.0, 0
    for text in texts:
        ids = torch.tensor([world.model.encode(text)])
        with torch.no_grad():
            logits = world.model.hf(ids).logits[0, 1:]
            moved = logits + world.model.hf.lm_head(factor * row)
        p, q = logits.log_softmax(-1), moved.log_softmax(-1)
        total += float((p.exp() * (p - q)).sum())
        count += len(p)
    assert reached == pytest.approx(total / count, rel=1e-4)


def test_a_writer_shifts_its_own_texts_and_a_reader_cannot(world: PlantedWorld, sea: ContrastSet) -> None:
    shift = likelihood_shift(world.model, {world.site: world.sae.rows([world.concepts["sea"]])[0]}, sea.take(20))
    assert 0.2 < shift.low < shift.shift < shift.high
    assert shift.positive > 0 > shift.negative
    assert shift.shift == pytest.approx(shift.positive - shift.negative)
    turned = likelihood_shift(world.model, {world.site: -world.sae.rows([world.concepts["sea"]])[0]}, sea.take(20))
    assert turned.high < 0
    other = likelihood_shift(world.model, {world.site: world.sae.rows([world.concepts["fire"]])[0]}, sea.take(20))
    assert abs(other.shift) < 0.05


def test_nothing_to_add_is_refused(world: PlantedWorld) -> None:
    with pytest.raises(InputError, match="not all zeros"):
        matched_strength(world.model, {world.site: torch.zeros(32)})
    with pytest.raises(InputError, match="above 0"):
        matched_strength(world.model, {world.site: torch.ones(32)}, 0.0)


def test_the_gradient_is_the_derivative_of_the_shift(world: PlantedWorld, sea: ContrastSet) -> None:
    few = sea.take(6)
    gradient = likelihood_gradient(world.model, world.site, few)
    base = text_likelihoods(world.model, few).double()
    for feature in (*world.concepts.values(), 0, 3):
        row = world.sae.rows([feature])[0]
        step = 1e-2
        change = (text_likelihoods(world.model, few, {world.site: row * step}).double() - base) / step
        measured = float(change[:6].mean() - change[6:].mean())
        assert float(gradient @ row) == pytest.approx(measured, abs=2e-2 * float(row.norm()))


def test_curvature_predicts_the_kl_of_small_steps(world: PlantedWorld) -> None:
    curve = curvature(world.model, world.site, draws=200)
    for feature in (*world.concepts.values(), 0, 3, 5):
        row = world.sae.rows([feature])[0]
        factor, reached = matched_strength(world.model, {world.site: row}, 2e-4, tolerance=0.02)
        assert float(curve.kl(factor * row[None])[0]) == pytest.approx(reached, rel=0.25)
        assert float(curve.strengths(row[None], 2e-4)[0]) == pytest.approx(factor, rel=0.15)


def test_gains_rank_the_writer_first_among_all_features(world: PlantedWorld, sea: ContrastSet) -> None:
    rows = world.sae.rows(range(world.sae.d_sae))
    found = gains(likelihood_gradient(world.model, world.site, sea), curvature(world.model, world.site, draws=16), rows)
    assert int(found.argmax()) == world.concepts["sea"]
    assert all(float(found[index]) == 0.0 for index in world.readers.values())


def test_what_is_known_already_changes_nothing_and_a_start_is_only_a_start(
    world: PlantedWorld, sea: ContrastSet
) -> None:
    few, row = sea.take(8), {world.site: world.sae.rows([world.concepts["sea"]])[0]}
    known, base = neutral(world.model), text_likelihoods(world.model, few)
    plain = likelihood_shift(world.model, row, few, kl=0.2)
    assert likelihood_shift(world.model, row, few, kl=0.2, base=base, known=known) == plain
    for start in (plain.strength / 50, plain.strength * 20):
        again = likelihood_shift(world.model, row, few, kl=0.2, known=known, start=start)
        assert again.kl == pytest.approx(0.2, rel=0.1)
        assert again.strength == pytest.approx(plain.strength, rel=0.1)
