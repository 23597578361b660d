"""The planted world is as its description says; every later test leans on that."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.lm.load import Model
from trimtab.lm.residual import SiteEdit, edit, read
from trimtab.sae.load import check_fits
from trimtab.spec import Scope
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


def logits(model: Model, text: str, vector: Tensor | None = None) -> Tensor:
    ids, _ = model.pad([model.encode(text)])
    edits = []
    if vector is not None:
        edits = [SiteEdit(planted_world().site, Scope(), None, lambda h: vector.expand_as(h))]
    with torch.no_grad(), edit(model, edits):
        return model.hf(ids).logits[0]  # type: ignore[no-any-return]


def activations(world: PlantedWorld, text: str) -> Tensor:
    ids, _ = world.model.pad([world.model.encode(text)])
    return world.sae.encode(read(world.model, ids, [world.site])[world.site][0])


def test_same_seed_same_world_other_seed_other_world(world: PlantedWorld) -> None:
    torch.manual_seed(1)
    again = planted_world()
    assert (again.sae.fingerprint, again.model.fingerprint) == (world.sae.fingerprint, world.model.fingerprint)
    other = planted_world(seed=1)
    assert other.concepts != world.concepts
    assert other.sae.fingerprint != world.sae.fingerprint
    assert other.model.fingerprint != world.model.fingerprint


def test_the_sae_fits_the_model(world: PlantedWorld) -> None:
    check_fits(world.sae, world.model)


def test_text_goes_in_and_out(world: PlantedWorld) -> None:
    model = world.model
    ids = model.encode("Once upon a time")
    assert ids[0] == model.bos_id
    assert model.tokenizer.unk_token_id not in ids
    assert model.decode(ids) == "once upon a time"
    for concept in (None, *world.words):
        for text in world.texts(concept, 20):
            assert model.tokenizer.unk_token_id not in model.encode(text)
            assert model.decode(model.encode(text)) == text


def test_texts_are_about_their_concept_alone(world: PlantedWorld) -> None:
    assert world.texts("sea", 5) == world.texts("sea", 5)
    assert world.texts("sea", 5) != world.texts("sea", 5, seed=1)
    for concept in (None, *world.words):
        for text in world.texts(concept, 10):
            found = {name for name, words in world.words.items() if set(words) & set(text.split())}
            assert found == ({concept} if concept else set())
    with pytest.raises(InputError, match=r"Unknown concept 'love'. Valid: fire, sea, music"):
        world.texts("love", 1)


def test_both_features_of_a_concept_fire_on_its_words_and_nowhere_else(world: PlantedWorld) -> None:
    for concept, words in world.words.items():
        text = world.texts(concept, 1)[0]
        f = activations(world, text)[1:]  # without BOS
        is_word = torch.tensor([word in words for word in text.split()])
        for index in (world.concepts[concept], world.readers[concept]):
            assert torch.equal(f[:, index] > 0, is_word)
            assert world.sae.max_act is not None
            torch.testing.assert_close(f[is_word, index], world.sae.max_act[index].expand(int(is_word.sum())))


def test_an_edit_moves_the_logits_by_the_head_of_it(world: PlantedWorld) -> None:
    model, text = world.model, world.texts(None, 1)[0]
    plain = logits(model, text)
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    moved = logits(model, text, vector)
    torch.testing.assert_close(
        (moved - plain)[1:], (model.hf.lm_head(vector)).expand_as(plain[1:]), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(moved[0], plain[0])  # BOS is left alone


def test_writers_write_their_words_and_readers_nothing(world: PlantedWorld) -> None:
    model = world.model
    vocabulary = model.tokenizer.get_vocab()
    for concept, words in world.words.items():
        pushed = model.hf.lm_head(world.sae.rows([world.concepts[concept]])[0])
        best = set(pushed.topk(len(words)).indices.tolist())
        assert best == {vocabulary[word] for word in words}
        read_only = model.hf.lm_head(world.sae.rows([world.readers[concept]])[0])
        assert float(read_only.abs().max()) < 1e-5 * float(pushed.max())
        torch.testing.assert_close(
            torch.nn.functional.cosine_similarity(
                world.sae.rows([world.concepts[concept]])[0], world.directions[concept], dim=0
            ),
            torch.tensor(1.0),
        )


def test_steered_text_is_about_the_concept_and_plain_text_is_not(world: PlantedWorld) -> None:
    def share(vector: Tensor | None) -> float:
        model = world.model
        ids, mask = model.pad([model.encode("Once upon a time")] * 20)
        edits = [] if vector is None else [SiteEdit(world.site, Scope(), None, lambda h: vector.expand_as(h))]
        with torch.random.fork_rng(devices=[]), edit(model, edits):
            torch.manual_seed(0)
            out = model.hf.generate(ids, attention_mask=mask, max_new_tokens=40, do_sample=True, top_k=0)
        said = model.decode(out[:, ids.shape[1] :].flatten().tolist()).split()
        return sum(word in world.words["fire"] for word in said) / len(said)

    assert world.sae.max_act is not None
    pushes = world.sae.max_act[:, None] * world.sae.W_dec
    plain = share(None)
    assert plain < 0.05
    assert share(pushes[world.concepts["fire"]]) > 5 * plain
    assert share(pushes[world.readers["fire"]]) == plain


def test_the_traps_are_set(world: PlantedWorld) -> None:
    """BOS is a sink that fires the readers, decoder rows differ in length, and the decoder's bias would be noticed."""
    text = world.texts(None, 1)[0]
    ids, _ = world.model.pad([world.model.encode(text)])
    norms = read(world.model, ids, [world.site])[world.site][0].norm(dim=-1)
    assert norms[0] > 9 * norms[1:].max()
    f = activations(world, text)
    assert world.sae.max_act is not None
    for index in world.readers.values():
        assert f[0, index] > 9 * world.sae.max_act[index]
        assert (f[1:, index] == 0).all()
    lengths = world.sae.W_dec.norm(dim=1)
    assert lengths.max() > 2 * lengths.min()
    assert world.sae.b_dec.norm() > lengths.max()


def test_earlier_words_matter(world: PlantedWorld) -> None:
    """Attention is at work, so caches and padding can go wrong here."""
    first, second = (logits(world.model, f"{word} saw the")[-1] for word in ("cat", "dog"))
    assert float((first - second).abs().max()) > 0.01


def test_measurements_leave_bos_out(world: PlantedWorld) -> None:
    """A concept's word is 1 of 6 in the sentences about it, which are a quarter of the texts measured."""
    assert world.sae.density is not None
    for index in (*world.concepts.values(), *world.readers.values()):
        assert float(world.sae.density[index]) == pytest.approx(1 / 24)
