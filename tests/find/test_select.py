"""Planted features are found by what they do; labels without meaning find nothing."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from trimtab.errors import InputError
from trimtab.find.contrast import collect
from trimtab.find.output import output_scores
from trimtab.find.pairs import ContrastSet, Splits
from trimtab.find.select import Filters, ordered, score, select
from trimtab.lm.lens import promoted, words
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.mark.parametrize("concept", ["fire", "sea", "music"])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_planted_features_are_found_and_the_writer_comes_first(concept: str, seed: int) -> None:
    world = planted_world(seed)
    made = ContrastSet.of(world.texts(concept, 60, seed=1), world.texts(None, 60, seed=2), paired=False)
    found = select(world.model, world.sae, made)
    assert found[0].index == world.concepts[concept]
    full = {one.index for one in found if one.coverage > 0.95 and one.other_coverage < 0.05}
    assert full == {world.concepts[concept], world.readers[concept]}
    by = {one.index: one for one in found}
    assert by[world.concepts[concept]].gain > 0.2  # type: ignore[operator]
    assert by[world.readers[concept]].gain == 0.0
    others = {*world.concepts.values(), *world.readers.values()} - full
    assert not others & set(by)


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_labels_find_nothing(world: PlantedWorld, sea: ContrastSet, seed: int) -> None:
    texts = [*sea.positive, *sea.negative]
    random.Random(seed).shuffle(texts)
    made = ContrastSet.of(texts[:60], texts[60:], paired=False)
    assert select(world.model, world.sae, made, output=False, order="input") == []


def test_negative_features_come_only_when_asked_for(world: PlantedWorld, sea: ContrastSet) -> None:
    turned = sea.swapped()
    plain = select(world.model, world.sae, turned, output=False)
    both = select(world.model, world.sae, turned, output=False, filters=Filters(both_sides=True))
    assert world.concepts["sea"] not in {one.index for one in plain}
    mine = next(one for one in both if one.index == world.concepts["sea"])
    assert (mine.sign, mine.auc) == (-1, 0.0)
    assert mine.coverage == pytest.approx(1.0)
    assert mine.confirmed


def test_a_feature_that_held_out_texts_do_not_confirm_is_dropped(world: PlantedWorld, parts: Splits) -> None:
    train, held = (collect(world.model, world.sae, part)[0] for part in parts[:2])
    blank = replace(held, positive=held.negative)
    assert score(train, held)
    assert score(train, blank) == []
    assert {one.index for one in score(train, blank, Filters(confirmed=False))} >= {world.concepts["sea"]}


def test_dense_features_and_features_of_bos_can_be_filtered(world: PlantedWorld, parts: Splits) -> None:
    train, held = (collect(world.model, world.sae, part)[0] for part in parts[:2])
    writer, reader = world.concepts["sea"], world.readers["sea"]
    assert {one.index for one in score(train, held)} >= {writer, reader}
    assert reader not in {one.index for one in score(train, held, Filters(max_odd=5.0))}
    assert writer in {one.index for one in score(train, held, Filters(max_odd=5.0))}
    tight = float(train.density[writer]) - 1e-6
    assert writer not in {one.index for one in score(train, held, Filters(max_density=tight))}


def test_the_order_is_by_the_score_asked_for(world: PlantedWorld, sea: ContrastSet) -> None:
    found = select(world.model, world.sae, sea)
    effects = [one.effect for one in ordered(found, "input")]
    assert effects == sorted(effects, reverse=True)
    gains = [one.gain for one in ordered(found, "gain")]
    assert gains == sorted(gains, key=lambda g: -(g or 0.0))
    outputs = [one.output for one in ordered(found, "output")]
    assert outputs == sorted(outputs, key=lambda o: -(o or 0.0))
    with pytest.raises(InputError, match="Unknown order"):
        select(world.model, world.sae, sea, order="best")  # type: ignore[arg-type]


def test_the_output_score_follows_its_formula(world: PlantedWorld) -> None:
    """Recomputed by hand: after the site the planted model only adds, so logits move by exactly lm_head(v)."""
    model, sae = world.model, world.sae
    prompt = "the cat saw the"
    ids = torch.tensor([model.encode(prompt)])
    with torch.no_grad():
        plain = model.hf(ids).logits[0, -1]
        from trimtab.lm.residual import read

        amount = 2.0 * float(sae.encode(read(model, ids, [sae.site])[sae.site][0, -1]).max())
        for feature in (world.concepts["sea"], world.readers["sea"], 5):
            row = sae.rows([feature])[0]
            logits = plain + model.hf.lm_head(amount * row)
            top = model.hf.lm_head(row).topk(4).indices
            best = min(int((logits > logits[i]).sum()) for i in top)
            probability = float(logits.softmax(0)[top].max())
            found = output_scores(model, sae, [feature], prompt=prompt, strength=2.0, k=4)[0]
            assert found.best_rank == best
            assert found.probability == pytest.approx(probability, rel=1e-4)
            assert found.score == pytest.approx((1 - best / len(logits)) * probability, rel=1e-4)


def test_a_writer_scores_higher_than_it_does_for_other_words(world: PlantedWorld) -> None:
    scores = {
        c: output_scores(world.model, world.sae, [i], prompt="the cat saw the", k=5)[0]
        for c, i in world.concepts.items()
    }
    for concept, one in scores.items():
        assert set(one.promoted) == set(world.words[concept])
        assert one.best_rank == 0
    assert output_scores(world.model, world.sae, []) == []


def test_many_features_give_the_same_scores_as_one_at_a_time(world: PlantedWorld) -> None:
    every = output_scores(world.model, world.sae, range(world.sae.d_sae), k=3)
    for index in (0, world.sae.d_sae - 1):
        alone = output_scores(world.model, world.sae, [index], k=3)[0]
        assert every[index].score == pytest.approx(alone.score, rel=1e-4, abs=1e-9)


def test_the_lens_of_a_writer_is_its_words(world: PlantedWorld) -> None:
    for concept, words_of in world.words.items():
        ids = promoted(world.model, world.directions[concept][None], 5)[0]
        assert set(words(world.model, ids)) == set(words_of)


def test_the_saes_own_density_decides_where_it_has_one(world: PlantedWorld, sea: ContrastSet) -> None:
    """On texts half of which are about the sea a feature of the sea is not rare, and it is not to be judged by them."""
    writer = world.concepts["sea"]
    at = torch.arange(world.sae.d_sae) == writer
    dense, rare = (replace(world.sae, density=torch.where(at, share, 0.001)) for share in (0.5, 0.0001))
    assert writer not in {one.index for one in select(world.model, dense, sea, output=False)}
    tight = Filters(max_density=0.01)
    found = {one.index: one for one in select(world.model, rare, sea, output=False, filters=tight)}
    assert found[writer].density == pytest.approx(0.0001)
    bare = replace(world.sae, density=None)
    assert writer not in {one.index for one in select(world.model, bare, sea, output=False, filters=tight)}
