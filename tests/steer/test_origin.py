"""The system that trimtab grew from, at its real width: GPT-Neo of 768, 10,000 features after block index 1.

There a feature was steered by adding 10 times its unit-length decoder row at every step. Weights are random here; what
is tested is which vector arrives in the residual stream.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from trimtab.lm.load import Model
from trimtab.lm.residual import read
from trimtab.sae.sae import SAE
from trimtab.spec import Site
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import tiny_model

WIDTH, FEATURES, FEATURE, SITE = 768, 10_000, 87, Site(layer=1)
IDS = torch.tensor([[1, 82, 113, 102, 104, 35, 120]])


@pytest.fixture(scope="module")
def neo() -> Model:
    return tiny_model("gpt_neo", d_model=WIDTH, n_layers=3)


@pytest.fixture(scope="module")
def sae() -> SAE:
    draw = torch.Generator().manual_seed(0)
    W_dec = torch.randn(FEATURES, WIDTH, generator=draw) * torch.rand(FEATURES, 1, generator=draw)
    return SAE(
        name="two layers", architecture="standard", site=SITE, model_name=None, normalisation="sequence",
        W_enc=torch.randn(WIDTH, FEATURES, generator=draw), b_enc=torch.zeros(FEATURES),
        W_dec=W_dec, b_dec=torch.randn(WIDTH, generator=draw), apply_b_dec_to_input=False,
    )  # fmt: skip


def moved(model: Model, recipe: Recipe) -> torch.Tensor:
    """By how much the residual moves at the site, [tokens without BOS, d]."""
    plain = read(model, IDS, [SITE])[SITE]
    with model.edited(recipe):
        steered = read(model, IDS, [SITE])[SITE]
    return (steered - plain)[0, 1:]


def test_ten_times_the_unit_row_arrives_in_the_stream(neo: Model, sae: SAE) -> None:
    change = moved(neo, Recipe.add(sae, {FEATURE: 10.0}, unit="raw"))
    unit = sae.W_dec[FEATURE] / sae.W_dec[FEATURE].norm()
    torch.testing.assert_close(change, (10 * unit).expand(6, WIDTH), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(change.norm(dim=-1), torch.full((6,), 10.0), rtol=1e-4, atol=1e-4)


def test_decoding_a_one_hot_code_is_another_vector_because_of_the_bias(neo: Model, sae: SAE) -> None:
    onehot = torch.zeros(FEATURES)
    onehot[FEATURE] = 1.0
    row = sae.W_dec[FEATURE]
    wrong = dataclasses.replace(sae, normalisation="none").decode(onehot)
    torch.testing.assert_close(wrong - row, sae.b_dec, rtol=1e-4, atol=1e-4)
    change = moved(neo, Recipe.add(sae, {FEATURE: 10.0}, unit="raw"))[0]
    assert torch.cosine_similarity(change, row, dim=0) > 0.9999
    assert torch.cosine_similarity(change, wrong, dim=0) < 0.9
    leaked = torch.cosine_similarity(change, sae.b_dec, dim=0) - torch.cosine_similarity(row, sae.b_dec, dim=0)
    assert abs(leaked) < 1e-4


def test_the_stream_before_the_site_is_untouched_and_the_output_is_not(neo: Model, sae: SAE) -> None:
    recipe = Recipe.add(sae, {FEATURE: 10.0}, unit="raw")
    plain, logits = read(neo, IDS, [0])[Site(layer=0)], neo.hf(IDS).logits
    with neo.edited(recipe):
        assert torch.equal(read(neo, IDS, [0])[Site(layer=0)], plain)
        assert not torch.allclose(neo.hf(IDS).logits, logits, atol=1e-3)
    assert torch.equal(neo.hf(IDS).logits, logits)
