"""The SAE in the package, on the real model: what its card claims, and that it steers."""

from __future__ import annotations

import pytest
import torch

from trimtab.evidence.demo import choose, neutral_texts
from trimtab.find.gain import curvature
from trimtab.find.sources import shipped
from trimtab.lm.load import Model, open_model
from trimtab.lm.residual import read
from trimtab.sae.load import check_fits, open_sae
from trimtab.sae.sae import SAE
from trimtab.sae.shipped import SHIPPED
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe

TEXT = "The harbour master counted the boats again, wrote the number in her book, and went in to make tea before dark."


@pytest.fixture(scope="module")
def model() -> Model:
    return open_model("gemma-3-270m")


@pytest.fixture(scope="module")
def sae() -> SAE:
    return open_sae("gemma-3-270m")


def activations(model: Model, sae: SAE, ids: list[int]) -> torch.Tensor:
    return sae.encode(read(model, torch.tensor([ids]), [sae.site])[sae.site][0, 1:])


def test_sae_lens_reads_the_same_numbers(model: Model, sae: SAE) -> None:
    from sae_lens import SAE as TheirSAE

    theirs = TheirSAE.load_from_disk(str(SHIPPED / "gemma-3-270m"))
    h = read(model, torch.tensor([model.encode(TEXT)]), [sae.site])[sae.site][0]
    torch.testing.assert_close(sae.encode(h), theirs.encode(h).detach(), rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(sae.reconstruct(h), theirs(h).detach(), rtol=1e-4, atol=0.5)


def test_a_text_that_no_one_trained_on_is_read_as_the_card_says(model: Model, sae: SAE) -> None:
    check_fits(sae, model)
    assert sae.card["fvu"] <= 0.10
    assert sae.card["l0"] <= 40
    assert sae.card["alive"] >= 0.90
    assert sae.card["ce_recovered"] >= 0.985
    h = read(model, torch.tensor([model.encode(TEXT)]), [sae.site])[sae.site][0, 1:]
    f = sae.encode(h)
    assert 0.3 * sae.card["l0"] < float((f > 0).sum(-1).float().mean()) < 3 * sae.card["l0"]
    explained = 1 - float((sae.reconstruct(h) - h).pow(2).sum() / (h - h.mean(0)).pow(2).sum())
    assert explained > 0.8
    assert sum(file.stat().st_size for file in (SHIPPED / "gemma-3-270m").iterdir()) <= 45e6


def test_the_second_sae_is_another_witness_at_another_block(model: Model, sae: SAE) -> None:
    other = open_sae("gemma-3-270m-block-9")
    check_fits(other, model)
    assert other.site != sae.site
    h = read(model, torch.tensor([model.encode(TEXT)]), [other.site])[other.site][0, 1:]
    explained = 1 - float((other.reconstruct(h) - h).pow(2).sum() / (h - h.mean(0)).pow(2).sum())
    assert explained > 0.8
    assert sum(file.stat().st_size for file in (SHIPPED / other.name).iterdir()) <= 11e6


def test_a_feature_found_by_rule_steers_what_the_model_writes(model: Model, sae: SAE) -> None:
    found = choose(model, sae, shipped("sea"), neutral_texts()[:3], curvature(model, sae.site))
    assert found.feature is not None
    assert found.strength is not None
    rates = []
    for recipe in (None, Recipe.add(sae, {found.feature: found.strength})):
        records = generate(model, ["Once upon a time"], recipe, samples=12, max_new_tokens=20, seed=1)
        fires = [activations(model, sae, list(r.token_ids))[r.generated_from - 1 :, found.feature] > 0 for r in records]
        rates.append(float(torch.cat(fires).float().mean()))
    plain, steered = rates
    assert steered > max(3 * plain, 0.02)
