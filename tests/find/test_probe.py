"""Features that tell two sides apart together, and the probes that say how well."""

from __future__ import annotations

import pytest
import torch
from scipy.sparse import csr_matrix

from trimtab.errors import InputError
from trimtab.find.contrast import Activations, Side, collect
from trimtab.find.pairs import Splits
from trimtab.find.probe import probe, separating
from trimtab.spec import Site
from trimtab.testing.planted import PlantedWorld


def _made(positive: torch.Tensor, negative: torch.Tensor) -> Activations:
    sides = [Side(part, csr_matrix(part)) for part in (positive, negative)]
    n = positive.shape[1]
    return Activations(
        Site(layer=0), "mean", sides[0], sides[1], torch.full((n,), 0.5), torch.ones(n), torch.zeros(n), 9, 0
    )


def _three_signs(n: int, seed: int) -> Activations:
    """Features 0 and 1 say the same strong thing, 2 and 3 a weaker one each (3 for the other side), 4 to 9 nothing."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.cat([torch.ones(n), -torch.ones(n)])
    x = torch.randn(2 * n, 10, generator=generator)
    x[:, 0] += label
    x[:, 1] = x[:, 0] + 0.05 * torch.randn(2 * n, generator=generator)
    x[:, 2] += 0.7 * label
    x[:, 3] -= 0.7 * label
    x = (x + 6).clamp(min=0)
    return _made(x[:n], x[n:])


def test_features_are_chosen_together_and_not_for_saying_the_same() -> None:
    train, held = _three_signs(300, 0), _three_signs(500, 1)
    chosen = separating(train, 3)
    assert set(chosen) - {0, 1} == {2, 3}
    one_by_one = probe(train, held, [0, 1, 2]).auc
    assert probe(train, held, chosen).auc > one_by_one + 0.02
    assert probe(train, held, chosen).auc == pytest.approx(probe(train, held).auc, abs=0.01)


def test_at_most_so_many_and_only_those_that_fire(world: PlantedWorld, parts: Splits) -> None:
    train, held = (collect(world.model, world.sae, part)[0] for part in parts[:2])
    for limit in (1, 2, 5):
        chosen = separating(train, limit)
        assert 1 <= len(chosen) <= limit
        assert set(chosen[:1]) <= {world.concepts["sea"], world.readers["sea"]}
        assert probe(train, held, chosen).auc == 1.0
    rare = float(min(train.density[[world.concepts["sea"], world.readers["sea"]]])) - 1e-6
    assert not {world.concepts["sea"], world.readers["sea"]} & set(separating(train, 5, max_density=rare))
    assert separating(train, 5, max_density=-1.0) == []
    with pytest.raises(InputError, match="At least one feature"):
        separating(train, 0)


def test_a_probe_on_the_planted_features_is_as_good_as_on_the_residual(world: PlantedWorld, parts: Splits) -> None:
    train, held = (collect(world.model, world.sae, part)[0] for part in parts[:2])
    assert probe(train, held).auc == 1.0
    found = probe(train, held, [world.concepts["sea"]])
    assert found.auc == 1.0
    assert found.positive.min() > found.negative.max()
    assert 0.2 < probe(train, held, [world.concepts["fire"]]).auc < 0.8
