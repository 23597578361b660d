"""The planted truth comes out of noise: 1,500 features that fire by chance, three planted groups, an incomplete SAE.

Every feature fires on some texts whatever their side, 40 or so on a text. A planted one fires on half to nine tenths of
the positive texts and on a tenth of the negative ones; those of a group fire on the same texts, but for a fifth of
them. The residual holds the decoded features and noise of a feature's size, which the SAE does not explain.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from scipy.sparse import csr_matrix, vstack

from trimtab.find.cluster import cluster
from trimtab.find.contrast import Activations, Side
from trimtab.find.fit import fit, held_auc
from trimtab.find.probe import probe, separating
from trimtab.find.select import Filters, score
from trimtab.sae.sae import SAE
from trimtab.spec import Site

GROUPS = ((10, 11, 12, 13), (500, 501, 502), (1400, 1401))
PLANTED = sorted(sum(GROUPS, ()))
WIDTH, FEATURES, SITE = 96, 1500, Site(layer=1)


class Noisy(NamedTuple):
    """An SAE, activations to learn from and to confirm on, and the direction that positive texts have on average."""

    sae: SAE
    train: Activations
    held: Activations
    truth: torch.Tensor


def _texts(n: int, positive: bool, generator: torch.Generator) -> torch.Tensor:
    """Activations [n, FEATURES]: exponential where a feature fires, 0 elsewhere."""

    def chance(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    share = 0.01 + 0.1 * torch.rand(FEATURES, generator=torch.Generator().manual_seed(7)) ** 4
    on = chance(n, FEATURES) < share
    for number, group in enumerate(GROUPS):
        together = chance(n) < (0.9 - 0.2 * number if positive else 0.1)
        own = chance(n, len(group)) < 0.5
        loose = chance(n, len(group)) < 0.2
        on[:, list(group)] = torch.where(loose, own & positive, together[:, None].expand_as(own))
    return on * -torch.log(chance(n, FEATURES).clamp(min=1e-6))


def _noisy(n: int = 150, seed: int = 0) -> Noisy:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.nn.functional.normalize(torch.randn(FEATURES, WIDTH, generator=generator), dim=-1)
    sae = SAE(
        name="noisy", architecture="standard", site=SITE, model_name="none", W_enc=rows.T.contiguous(),
        b_enc=torch.zeros(FEATURES), W_dec=rows, b_dec=torch.zeros(WIDTH),
    )  # fmt: skip
    means = torch.stack([_texts(4000, side, torch.Generator().manual_seed(9)).mean(0) for side in (True, False)])
    truth = (means[0] - means[1])[PLANTED] @ rows[PLANTED]

    def acts(size: int) -> Activations:
        sides = []
        for positive in (True, False):
            f = _texts(size, positive, generator)
            noise = torch.randn(size, WIDTH, generator=generator) / WIDTH**0.5
            sides.append(Side(f @ rows + noise, csr_matrix(f.numpy())))
        density = sum((torch.from_numpy(side.latents.toarray()) > 0).float().mean(0) for side in sides) / 20
        peak = torch.ones(FEATURES)
        return Activations(SITE, "mean", sides[0], sides[1], density, peak, 0 * peak, size * 40, 0)  # type: ignore[arg-type]

    return Noisy(sae, acts(n), acts(n // 2), truth)


@pytest.fixture(scope="module")
def noisy() -> Noisy:
    return _noisy(400)


def _shuffled(acts: Activations, seed: int) -> Activations:
    n = len(acts.positive.residual)
    order = torch.randperm(2 * n, generator=torch.Generator().manual_seed(seed)).tolist()
    residual = torch.cat([acts.positive.residual, acts.negative.residual])[order]
    latents = vstack([acts.positive.latents, acts.negative.latents]).tocsr()[order]
    return replace(acts, positive=Side(residual[:n], latents[:n]), negative=Side(residual[n:], latents[n:]))


@pytest.mark.parametrize("seed", range(4))
def test_all_planted_features_are_found_and_no_other(seed: int) -> None:
    world = _noisy(seed=seed)
    assert sorted(one.index for one in score(world.train, world.held)) == PLANTED


@pytest.mark.parametrize("method", ["mean_difference", "per_prompt", "ridge", "non_negative", "elastic_net"])
def test_the_fitted_vector_is_the_planted_one(noisy: Noisy, method: str) -> None:
    """Regressions also fit what the SAE does not explain and what other features happen to do."""
    found = fit(method, noisy.train, noisy.sae, PLANTED)
    cosine = float(torch.nn.functional.cosine_similarity(found.vectors[SITE], noisy.truth, dim=0))
    assert cosine > (0.99 if method in ("mean_difference", "per_prompt") else 0.98)
    assert held_auc(found, noisy.held) > 0.9


def test_clusters_are_the_planted_groups(noisy: Noisy) -> None:
    found = cluster(noisy.sae, PLANTED, noisy.train)
    assert {one.features for one in found.clusters} == set(GROUPS)
    assert found.loose == ()
    assert found.stability > 0.95


def test_shuffled_labels_keep_the_false_discovery_rate() -> None:
    """With no true feature every discovery is false, so a run may discover anything with a chance of 5 % only."""
    runs, small = 40, _noisy(100)
    alone = [score(_shuffled(small.train, seed), small.held, Filters(confirmed=False)) for seed in range(runs)]
    assert sum(map(bool, alone)) <= 7  # more by chance in one of 1,000 cases
    both = [score(_shuffled(small.train, seed), _shuffled(small.held, seed)) for seed in range(runs)]
    assert sum(map(len, both)) <= 1


def test_a_few_features_read_better_than_a_residual_full_of_other_things(noisy: Noisy) -> None:
    chosen = separating(noisy.train, 9)
    assert sorted(chosen) == PLANTED
    assert probe(noisy.train, noisy.held, chosen).auc > probe(noisy.train, noisy.held).auc + 0.05
    wrong = separating(_shuffled(noisy.train, 1), 9)
    assert probe(_shuffled(noisy.train, 1), _shuffled(noisy.held, 1), wrong).auc < 0.6
