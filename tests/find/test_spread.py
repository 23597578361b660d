"""Mean differences at many blocks, at equal cost."""

from __future__ import annotations

import pytest
import torch

from trimtab.errors import InputError
from trimtab.find.effect import matched_strength
from trimtab.find.pairs import ContrastSet
from trimtab.find.spread import ALONE, balanced, mean_differences, middle_sites, spread
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


def test_every_vector_alone_costs_the_same() -> None:
    vectors = spread(MODEL, TEXTS)
    assert list(vectors) == list(middle_sites(6)) == [Site(layer=3), Site(layer=4), Site(layer=5)]
    for site, vector in vectors.items():
        strength, cost = matched_strength(MODEL, {site: vector}, ALONE, tolerance=0.02)
        assert strength * (ALONE / cost) ** 0.5 == pytest.approx(1, rel=0.15)


def test_nothing_to_tell_the_sides_apart_is_said() -> None:
    zero = torch.zeros(MODEL.d_model)
    with pytest.raises(InputError, match="same mean residual"):
        balanced(MODEL, {Site(layer=1): zero})
    with pytest.raises(InputError, match="each once"):
        mean_differences(MODEL, TEXTS, [Site(layer=1), Site(layer=1)])


@pytest.mark.parametrize(("layers", "sites"), [(1, [0]), (2, [1]), (18, [9, 10, 11, 12, 13, 14, 15])])
def test_middle_blocks(layers: int, sites: list[int]) -> None:
    assert [site.layer for site in middle_sites(layers)] == sites
