"""The SAE and the index in the package, on the real model: what they claim, and that the SAE steers."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from trimtab.cli import app
from trimtab.cli.features import open_chosen
from trimtab.evidence.demo import choose, neutral_texts
from trimtab.find.gain import curvature
from trimtab.find.sources import shipped
from trimtab.index.store import Index, check_belongs
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


@pytest.fixture(scope="module")
def index() -> Index:
    return open_chosen(None)


def test_the_index_is_of_this_sae_small_and_whole(index: Index, sae: SAE) -> None:
    check_belongs(index, sae.fingerprint, sae.name)
    assert sum(file.stat().st_size for file in index.folder.rglob("*") if file.is_file()) <= 15e6
    assert index.features == sae.d_sae
    assert set(index.labels()) == set(range(sae.d_sae))
    assert index.query("select count(*) filter (count > 0) as n from features")[0]["n"] > 0.8 * sae.d_sae
    assert index.query("select count(*) as n from (select distinct feature from examples)")[0]["n"] > 0.8 * sae.d_sae
    texts = index.query("select count(*) as n from tokens where contains(text, '@') or contains(text, 'http')")
    assert texts[0]["n"] == 0
    assert not [row for row in index.query("select text from tokens") if row["text"] in ("<bos>", "<start_of_image>")]


def test_the_index_says_what_the_model_and_the_sae_do(index: Index, model: Model, sae: SAE) -> None:
    """Examples that begin where their text begins can be read again; activations are rounded to 8 bits."""
    rows = index.query(
        "select feature, tokens, values, value, examples.at from examples "
        "where position = examples.at + 1 and kind = 'top' and rank = 0 order by feature::bigint * 7919 % 16411 limit 5"
    )
    assert len(rows) == 5
    for row in rows:
        f = activations(model, sae, [model.bos_id or 0, *row["tokens"]])[:, row["feature"]]
        assert f.tolist() == pytest.approx(row["values"], rel=0.05, abs=0.02 * row["value"])
        assert row["values"][row["at"]] == row["value"] > 0


def test_features_are_found_at_once_after_installation(index: Index) -> None:
    hits = json.loads(CliRunner().invoke(app, ["features", "fire", "--json"]).stdout)
    assert "fire" in [word.text.strip().lower() for word in index.feature(hits[0]["feature"]).words[:3]]
    shown = CliRunner().invoke(app, ["feature", "11330"])
    assert shown.exit_code == 0
    assert "Feature 11330" in shown.stdout
    assert "Strongest" in shown.stdout
    said = json.loads(CliRunner().invoke(app, ["features", "--text", "The house was on fire.", "--json"]).stdout)
    assert {"fire", " fire"} & set(said["tokens"])
    assert len(said["features"]) == 20
    assert all(one["label"] for one in said["features"])
