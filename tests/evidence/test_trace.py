from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.evidence import trace as t
from trimtab.lm.pieces import pieces
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model
from trimtab.testing.planted import PlantedWorld

TEXTS = ["the cat saw a wave .", "a dog", "every child found the harbour . the tide was a house ."]


def test_trace_is_the_naive_reading_of_each_text_alone(world: PlantedWorld) -> None:
    model, sae = world.model, world.sae
    features = [world.concepts["sea"], world.readers["fire"], 0]
    ids = [model.encode(text) for text in TEXTS]
    for row, found in zip(ids, t.trace(model, sae, features, ids), strict=True):
        states = model.hf(torch.tensor([row]), output_hidden_states=True).hidden_states[world.site.layer + 1]
        expected = sae.encode(states[0, 1:])[:, features]
        assert found.shape == (len(row) - 1, 3)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_batches_do_not_change_the_reading(world: PlantedWorld) -> None:
    ids = [world.model.encode(text) for text in TEXTS * 3]
    together = t.trace(world.model, world.sae, [1, 2], ids)
    alone = [t.trace(world.model, world.sae, [1, 2], [row])[0] for row in ids]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_log_likelihood_is_the_models_own(world: PlantedWorld) -> None:
    ids = [world.model.encode(text) for text in TEXTS]
    starts = [3, 0, 5]
    for row, start, found in zip(ids, starts, t.log_likelihoods(world.model, ids, starts), strict=True):
        logits = world.model.hf(torch.tensor([row])).logits[0].log_softmax(-1)
        expected = [float(logits[i - 1, row[i]]) for i in range(max(1, start), len(row))]
        torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_a_steered_model_cannot_be_measured(world: PlantedWorld) -> None:
    ids = [world.model.encode("the cat")]
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    with world.model.edited(recipe):
        with pytest.raises(UnsupportedError, match="being edited"):
            t.trace(world.model, world.sae, [0], ids)
        with pytest.raises(UnsupportedError, match="being edited"):
            t.log_likelihoods(world.model, ids, [1])
        with pytest.raises(UnsupportedError, match="unsteered"):
            t.refuse_edited(world.model)
        world.model.hf(torch.tensor(ids))
    assert len(t.trace(world.model, world.sae, [0], ids)) == 1


def test_a_foreign_hook_is_refused_and_transformers_own_are_not(world: PlantedWorld) -> None:
    ids = [world.model.encode("the cat")]
    world.model.hf(torch.tensor(ids), output_hidden_states=True)
    t.trace(world.model, world.sae, [0], ids)
    handle = world.model.blocks[2].register_forward_hook(lambda module, args, output: output)
    try:
        with pytest.raises(UnsupportedError, match="hook"):
            t.trace(world.model, world.sae, [0], ids)
    finally:
        handle.remove()


def test_pieces_join_to_the_text_and_split_characters_go_to_their_last_token() -> None:
    model = tiny_model("gpt2")
    ids = model.encode("a€ b")
    found = pieces(model, ids, 1)
    assert "".join(found) == "a€ b"
    assert found == ["a", "", "", "€", " ", "b"]
    assert pieces(model, ids, 2) == found[1:]


def test_an_unfinished_character_at_the_end_is_still_shown() -> None:
    model = tiny_model("gpt2")
    ids = model.encode("a€")[:-1]
    assert "".join(pieces(model, ids, 1)) == "a\ufffd"


def test_empty_texts_are_refused(world: PlantedWorld) -> None:
    with pytest.raises(InputError, match="Text 1 has no tokens"):
        t.trace(world.model, world.sae, [0], [[1, 2], []])
