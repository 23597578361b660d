"""Pooled activations against a plain loop over texts, one text at a time."""

from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError
from trimtab.find.contrast import Pool, batches, collect, pooled_tokens, tokenise
from trimtab.find.pairs import ContrastSet
from trimtab.lm.residual import read
from trimtab.testing.planted import PlantedWorld

TEXTS = (
    ["the cat found a boat .", "a sailor saw the tide . the dog was a child .", "every wave took the boat ."] * 3,
    ["the cat found a stone .", "a child saw the tree . the dog was a bridge .", "every house took the stone ."] * 3,
)


@pytest.fixture(scope="module")
def few() -> ContrastSet:
    return ContrastSet.of(*TEXTS)


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
def test_pooling_equals_a_loop_over_single_texts(world: PlantedWorld, few: ContrastSet, pool: Pool) -> None:
    found = collect(world.model, world.sae, few, pool, template=False)[0]
    for side, texts in ((found.positive, few.positive), (found.negative, few.negative)):
        for row, text in enumerate(texts):
            ids = torch.tensor([world.model.encode(text)])
            h = read(world.model, ids, [world.site])[world.site][0]
            f = world.sae.encode(h)
            pick = slice(-1, None) if pool == "last" else slice(1, None)
            latent = f[pick].amax(0) if pool == "max" else f[pick].mean(0)
            assert torch.allclose(side.dense(range(world.sae.d_sae))[row], latent, atol=1e-5)
            assert torch.allclose(side.residual[row], h[pick].mean(0), atol=1e-5)


def test_density_and_peaks_count_ordinary_tokens_only(world: PlantedWorld, few: ContrastSet) -> None:
    found = collect(world.model, world.sae, few)[0]
    reader, writer = world.readers["sea"], world.concepts["sea"]
    concept = sum(word in world.words["sea"] for text in (*few.positive, *few.negative) for word in text.split())
    total = sum(len(text.split()) for text in (*few.positive, *few.negative))
    assert found.tokens == total
    assert float(found.density[writer]) == pytest.approx(concept / total)
    # BOS fires the reader ten times harder than any word; it must not show among the ordinary tokens.
    assert found.odd_peak[reader] > 5 * found.peak[reader] > 0


def test_tokens_that_all_texts_share_at_an_end_are_left_out(world: PlantedWorld, few: ContrastSet) -> None:
    ids = tokenise(world.model, few)
    kept = pooled_tokens(ids, few, "mean", world.model.bos_id)
    assert not any(row[-1] for row in kept)  # the final stop
    assert all(row[-2] for row in kept)
    assert not any(row[0] for row in kept)
    assert all(row[-1] for row in pooled_tokens(ids, few, "mean", world.model.bos_id, template=False))


def test_the_answer_is_what_follows_the_shared_start(world: PlantedWorld) -> None:
    made = ContrastSet.of(["the cat found a boat"] * 8, ["the cat found a stone"] * 8)
    kept = pooled_tokens(tokenise(world.model, made), made, "answer", world.model.bos_id)
    assert kept == [[False] * 5 + [True]] * 16
    loose = ContrastSet.of(made.positive, made.negative, paired=False)
    ids = tokenise(world.model, loose)
    with pytest.raises(InputError, match="not paired"):
        pooled_tokens(ids, loose, "answer", world.model.bos_id)


def test_several_sites_share_one_forward_pass_a_text(world: PlantedWorld, few: ContrastSet) -> None:
    from dataclasses import replace

    other = replace(world.sae, site=type(world.site)(layer=0))
    calls = []
    handle = world.model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        both = collect(world.model, [other, world.sae], few)
    finally:
        handle.remove()
    assert len(calls) == len(list(batches(tokenise(world.model, few))))
    alone = collect(world.model, world.sae, few)[0]
    assert torch.equal(both[1].positive.residual, alone.positive.residual)
    assert [acts.site.layer for acts in both] == [0, 1]


def test_batches_hold_every_text_once_and_stay_within_their_size(world: PlantedWorld, sea: ContrastSet) -> None:
    ids = tokenise(world.model, sea)
    rows = []
    for batch in batches(ids, tokens=100):
        assert batch.ids.numel() <= 100
        rows += batch.rows
    assert sorted(rows) == list(range(len(ids)))


def test_a_text_longer_than_the_context_is_refused(world: PlantedWorld) -> None:
    made = ContrastSet.of(["cat " * 300] + ["the cat"] * 7, ["the dog"] * 8)
    with pytest.raises(InputError, match="301 tokens, more than the 256"):
        collect(world.model, world.sae, made)
