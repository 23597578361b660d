"""Mean differences at many blocks, at equal cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.effect import matched_strength
from trimtab.find.pairs import ContrastSet
from trimtab.find.spread import balanced, best_block, mean_differences, middle_sites, spread
from trimtab.lm.model import Model
from trimtab.lm.residual import read
from trimtab.spec import Site
from trimtab.testing.models import tiny_model

MODEL = tiny_model(n_layers=6)
TEXTS = ContrastSet.of(
    ["wet sand and salt", "a wave", "the tide", "boats", "spray", "an anchor", "gulls cry", "deep water"],
    ["dry grass", "a very long road", "hills", "carts", "dust", "a fence", "crows caw", "hard ground"],
)


def test_the_difference_is_that_of_the_texts_means() -> None:
    sites = (Site(layer=1), Site(layer=4))
    found = mean_differences(MODEL, TEXTS, sites)
    for site in sites:
        sides = [
            torch.stack([read(MODEL, torch.tensor([MODEL.encode(t)]), [site])[site][0, 1:].mean(0) for t in texts])
            for texts in (TEXTS.positive, TEXTS.negative)
        ]
        torch.testing.assert_close(found[site], sides[0].mean(0) - sides[1].mean(0), rtol=1e-4, atol=1e-5)


def test_every_vector_alone_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cost_of_each = 0.001  # a random model's predictions can be moved by 0.005 nats at most
    monkeypatch.setattr("trimtab.find.spread.ALONE", cost_of_each)
    vectors = spread(MODEL, TEXTS)
    assert list(vectors) == list(middle_sites(6)) == [Site(layer=3), Site(layer=4), Site(layer=5)]
    for site, vector in vectors.items():
        strength, cost = matched_strength(MODEL, {site: vector}, cost_of_each, tolerance=0.02)
        assert cost == pytest.approx(cost_of_each, rel=0.05)
        assert strength == pytest.approx(1, rel=0.2)


def test_the_best_block_is_chosen_on_texts_that_fitted_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    shifts = {1: 0.2, 2: 0.9, 3: 0.4}
    seen: list[ContrastSet] = []

    def shift(model: Model, vectors: dict[Site, Tensor], held: ContrastSet, **_: object) -> SimpleNamespace:
        seen.append(held)
        (site,) = vectors
        return SimpleNamespace(shift=shifts[site.layer])

    monkeypatch.setattr("trimtab.find.spread.likelihood_shift", shift)
    shares = (0.5, 0.25, 0.25)
    found = best_block(MODEL, TEXTS, shares, kl=0.01)
    assert seen == [TEXTS.split(shares).dev] * 3
    torch.testing.assert_close(found, mean_differences(MODEL, TEXTS, [Site(layer=2)]))


def test_nothing_to_tell_the_sides_apart_is_said() -> None:
    zero = torch.zeros(MODEL.d_model)
    with pytest.raises(InputError, match="same mean residual"):
        balanced(MODEL, {Site(layer=1): zero})
    with pytest.raises(InputError, match="each once"):
        mean_differences(MODEL, TEXTS, [Site(layer=1), Site(layer=1)])


@pytest.mark.parametrize(("layers", "sites"), [(1, [0]), (2, [1]), (18, [9, 10, 11, 12, 13, 14, 15])])
def test_middle_blocks(layers: int, sites: list[int]) -> None:
    assert [site.layer for site in middle_sites(layers)] == sites
