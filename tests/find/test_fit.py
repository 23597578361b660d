"""Weights: the planted direction is recovered, regressions agree with their definitions, bad requests are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trimtab.errors import InputError
from trimtab.find.contrast import Activations, collect
from trimtab.find.fit import DENSE, METHODS, fit, held_auc
from trimtab.find.pairs import Splits
from trimtab.find.regress import elastic_net, non_negative, ridge
from trimtab.testing.planted import PlantedWorld


@pytest.fixture(scope="module")
def both(world: PlantedWorld, parts: Splits) -> tuple[Activations, Activations]:
    train, held = (collect(world.model, world.sae, part)[0] for part in parts[:2])
    return train, held


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "fgaa"])
def test_the_fitted_vector_is_the_planted_one(
    world: PlantedWorld, both: tuple[Activations, Activations], method: str
) -> None:
    """What selection chose is the writer and the reader: the truth is the sum of their directions."""
    features = [world.concepts["sea"], world.readers["sea"]]
    found = fit(method, both[0], world.sae, features)
    rows = torch.nn.functional.normalize(world.sae.rows(features), dim=-1)
    assert _cosine(found.vectors[world.site], rows.sum(0)) > 0.99
    assert all(weight > 0 for weight in found.weights[world.site].values())
    assert held_auc(found, both[1]) == 1.0


@pytest.mark.parametrize("method", ["mean_difference", "ridge", "non_negative", "elastic_net"])
def test_features_of_other_concepts_get_no_weight(
    world: PlantedWorld, both: tuple[Activations, Activations], method: str
) -> None:
    features = list(world.concepts.values())
    found = fit(method, both[0], world.sae, features)
    assert _cosine(found.vectors[world.site], world.directions["sea"]) > 0.97


@pytest.mark.parametrize("method", list(DENSE))
def test_dense_baselines_separate_held_out_texts(
    world: PlantedWorld, both: tuple[Activations, Activations], method: str
) -> None:
    found = fit(method, both[0], world.sae)
    assert held_auc(found, both[1]) == 1.0
    assert not found.weights
    assert float(found.vectors[world.site] @ world.directions["sea"]) > 0


def test_caa_is_the_mean_difference(world: PlantedWorld, both: tuple[Activations, Activations]) -> None:
    train = both[0]
    expected = train.positive.residual.mean(0) - train.negative.residual.mean(0)
    assert torch.allclose(fit("caa", train, world.sae).vectors[world.site], expected)


def test_the_vector_is_the_weighted_sum_of_decoder_rows(
    world: PlantedWorld, both: tuple[Activations, Activations]
) -> None:
    for method in METHODS:
        if method == "fgaa":
            continue
        found = fit(method, both[0], world.sae, [1, 3, 5, 27], [1, -1, 1, 1])
        weights = found.weights[world.site]
        total = sum(w * world.sae.rows([i])[0] for i, w in weights.items())
        assert torch.allclose(found.vectors[world.site], total, atol=1e-5)  # type: ignore[arg-type]


def test_equal_weights_follow_the_signs_and_give_rows_one_length(
    world: PlantedWorld, both: tuple[Activations, Activations]
) -> None:
    found = fit("equal", both[0], world.sae, [1, 3], [1, -1])
    a, b = (world.sae.rows([i])[0] * found.weights[world.site][i] for i in (1, 3))
    assert float(a.norm()) == pytest.approx(float(b.norm()))
    assert found.weights[world.site][3] < 0 < found.weights[world.site][1]


def test_per_prompt_least_squares_on_one_prompt_is_numpys(
    world: PlantedWorld, both: tuple[Activations, Activations]
) -> None:
    from dataclasses import replace

    train = both[0]
    one = replace(
        train,
        positive=type(train.positive)(train.positive.residual[:1], train.positive.latents[:1]),
        negative=type(train.negative)(train.negative.residual[:1], train.negative.latents[:1]),
    )
    features = [world.concepts["sea"], world.readers["sea"], world.concepts["fire"]]
    f = one.positive.dense(features)[0]
    columns = (f[:, None] * world.sae.rows(features))[:2]
    delta = one.positive.residual[0] - one.negative.residual[0]
    solution = np.linalg.lstsq(columns.T.numpy(), delta.numpy(), rcond=None)[0] * f[:2].numpy()
    found = fit("per_prompt", one, world.sae, features, paired=True).weights[world.site]
    assert list(found.values()) == pytest.approx([*solution.tolist(), 0.0], abs=1e-4)


def test_fgaa_keeps_rare_features_of_positive_difference(
    world: PlantedWorld, both: tuple[Activations, Activations]
) -> None:
    from dataclasses import replace

    rare = replace(world.sae, density=torch.where(torch.arange(world.sae.d_sae) == 5, 0.5, 0.001))
    weights = fit("fgaa", both[0], rare).weights[world.site]
    assert 5 not in weights
    assert sum(weights.values()) == pytest.approx(1.0)
    assert min(weights.values()) > 0
    difference = torch.from_numpy(
        np.asarray(both[0].positive.latents.mean(0) - both[0].negative.latents.mean(0)).ravel()
    )
    assert set(weights) == {i for i in range(world.sae.d_sae) if difference[i] > 0 and i != 5}
    with pytest.raises(InputError, match="at least one feature"):
        fit("fgaa", both[0], replace(world.sae, density=torch.ones(world.sae.d_sae)))


def test_regressions_recover_weights_through_noise() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 60))
    true = np.array([2.0, 0, 0, 1.0, 0, 0, 0, 0.5])
    deltas = true @ rows + rng.normal(size=(40, 60))
    for solve in (ridge, non_negative, elastic_net):
        found = solve(rows, deltas)[0]
        assert np.abs(found - true).max() < 0.25, solve.__name__
    assert non_negative(rows, -deltas)[0].min() >= 0.0
    assert ridge(rows, -deltas)[0].min() < -1.5


def test_cross_validation_shrinks_what_prompts_do_not_share() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 40))
    noise = rng.normal(size=(10, 40)) * 5
    weak, chosen = ridge(rows, noise)
    assert chosen is not None
    assert chosen >= 1.0
    assert np.abs(weak).max() < np.abs(np.linalg.lstsq(rows.T, noise.mean(0), rcond=None)[0]).max() / 2


def test_several_sites_give_a_vector_each(world: PlantedWorld, parts: Splits) -> None:
    from dataclasses import replace

    from trimtab.spec import Site

    early = replace(world.sae, site=Site(layer=0))
    acts = collect(world.model, [early, world.sae], parts.train)
    features = [[world.concepts["sea"]], [world.concepts["sea"], world.readers["sea"]]]
    found = fit("mean_difference", acts, [early, world.sae], features)
    assert [site.layer for site in found.vectors] == [0, 1]
    assert [len(weights) for weights in found.weights.values()] == [1, 2]
    assert held_auc(found, collect(world.model, [early, world.sae], parts.dev)) == 1.0
    with pytest.raises(InputError, match="1 sites, but there are 2"):
        fit("mean_difference", acts, [early, world.sae], [1])


def test_an_unknown_method_and_a_contrast_without_need_are_refused(
    world: PlantedWorld, both: tuple[Activations, Activations]
) -> None:
    with pytest.raises(InputError, match="mean_difference"):
        fit("magic", both[0], world.sae, [1])
    with pytest.raises(InputError, match="at least one feature"):
        fit("ridge", both[0], world.sae, [])
    with pytest.raises(InputError, match="weight 0"):
        fit("mean_difference", both[0], world.sae, [world.concepts["fire"]])
