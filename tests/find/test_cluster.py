"""Clusters equal what was planted, whatever the method and the similarity that can see it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import matthews_corrcoef

from trimtab.errors import InputError
from trimtab.find.cluster import cluster
from trimtab.find.contrast import collect
from trimtab.find.decoder import decoder_clusters, overlap
from trimtab.find.grouping import METHODS, agglomerative, components, decoder_components, hdbscan
from trimtab.find.pairs import ContrastSet
from trimtab.find.similarity import Similarity, jaccard, phi, similarities
from trimtab.testing.planted import PlantedWorld


def rings(
    sizes: tuple[int, ...] = (7, 12), extra: int = 40, d: int = 64, seed: int = 0
) -> tuple[torch.Tensor, list[range]]:
    """Decoder rows of weekdays and months: each group on a ring about its own axis; then loose rows."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, d, generator=generator)).Q
    rows, groups = [], []
    for i, size in enumerate(sizes):
        axis, u, v = basis[3 * i : 3 * i + 3]
        angle = torch.arange(size) * 2 * torch.pi / size
        rows.append(axis + 0.7 * (angle.cos()[:, None] * u + angle.sin()[:, None] * v))
        start = sum(sizes[:i])
        groups.append(range(start, start + size))
    loose = torch.randn(extra, d - 3 * len(sizes), generator=generator) @ basis[3 * len(sizes) :]
    return torch.cat([*rows, loose]), groups


def test_rings_come_out_of_a_whole_decoder() -> None:
    rows, groups = rings()
    for chunk in (7, 1000):
        labels = decoder_components(rows, threshold=0.5, neighbours=2, chunk=chunk)
        for group in groups:
            assert len({int(labels[i]) for i in group}) == 1
        assert labels[0] != labels[7] >= 0
        assert (labels[19:] == -1).all()


def test_the_streamed_graph_equals_the_stored_one() -> None:
    rows, _ = rings(extra=80, d=24)
    square = similarities(rows, None, "cosine")
    streamed, stored = decoder_components(rows, 0.4, 3, chunk=11), components(square, 0.4, 3)
    assert (streamed[:, None] == streamed[None]).tolist() == (stored[:, None] == stored[None]).tolist()


def test_hdbscan_finds_the_rings_and_calls_the_rest_noise() -> None:
    rows, groups = rings()
    labels = hdbscan(similarities(rows, None, "cosine"))
    for group in groups:
        assert len({int(labels[i]) for i in group} - {-1}) == 1
    assert (labels[19:] == -1).mean() > 0.7


@pytest.mark.parametrize("method", ["components", "agglomerative", "spectral"])
@pytest.mark.parametrize("similarity", ["phi", "jaccard", "joint"])
def test_planted_groups(world: PlantedWorld, noisy: ContrastSet, method: str, similarity: Similarity) -> None:
    """A concept's writer and reader have orthogonal rows but fire together."""
    acts = collect(world.model, world.sae, noisy)[0]
    features = [*world.concepts.values(), *world.readers.values()]
    found = cluster(world.sae, features, acts, similarity=similarity, method=method, model=world.model)
    assert {frozenset(one.features) for one in found.clusters} == {
        frozenset((world.concepts[c], world.readers[c])) for c in world.words
    }
    assert found.loose == ()
    assert found.noise == 0.0
    for one in found.clusters:
        concept = next(c for c in world.words if world.concepts[c] in one.features)
        assert set(one.name[:5]) == set(world.words[concept])
        assert abs(one.cosine) < 1e-4
    if method != "spectral":  # which has to guess the number of clusters again from fewer features
        assert found.stability == 1.0


def test_by_cosine_alone_orthogonal_rows_are_loose(world: PlantedWorld) -> None:
    features = [*world.concepts.values(), *world.readers.values()]
    found = cluster(world.sae, features, similarity="cosine")
    assert found.clusters == ()
    assert found.noise == 1.0
    with pytest.raises(InputError, match="co-activations"):
        cluster(world.sae, features, similarity="phi")
    with pytest.raises(InputError, match=", ".join(METHODS)):
        cluster(world.sae, features, similarity="cosine", method="magic")


def test_chance_groups_are_unstable() -> None:
    from dataclasses import replace

    from trimtab.testing.planted import planted_world

    rows, groups = rings((7, 7), extra=0, d=32)
    generator = torch.Generator().manual_seed(1)
    base = planted_world().sae
    noise = torch.randn(38, 32, generator=generator)
    whole = torch.cat([rows, noise])[: base.d_sae] if base.d_sae <= 52 else torch.cat([rows, noise])
    sae = replace(base, W_dec=whole)
    stable = cluster(sae, range(14), similarity="cosine", method="components")
    chance = cluster(sae, range(14, base.d_sae), similarity="cosine", method=partial(agglomerative, threshold=0.2))
    assert {frozenset(one.features) for one in stable.clusters} == {frozenset(group) for group in groups}
    assert stable.stability > 0.9 > chance.stability


def test_phi_is_the_correlation_of_yes_and_no() -> None:
    fires = np.random.default_rng(0).random((50, 5)) < [0.2, 0.5, 0.5, 0.9, 0.0]
    fires[:, 2] = fires[:, 1] ^ (np.arange(50) % 7 == 0)
    found = phi(fires)
    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(matthews_corrcoef(fires[:, i], fires[:, j]), abs=1e-12)
    assert (found[4, :4] == 0).all()
    assert (np.diag(found) == 1).all()


def test_jaccard_counts_texts() -> None:
    fires = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=bool)
    assert jaccard(fires)[0, 1] == pytest.approx(2 / 4)
    assert jaccard(fires)[0, 2] == 0.0


def test_rings_of_weekdays_and_months_are_the_largest_clusters() -> None:
    rows, groups = rings()
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))
    lengths = 0.5 + torch.rand(len(rows), 1, generator=torch.Generator().manual_seed(2))
    W_dec = (rows * lengths)[order]
    place = {int(old): new for new, old in enumerate(order)}
    found = decoder_clusters(W_dec)
    for one, group in zip(found, sorted(groups, key=len, reverse=True), strict=False):
        assert sorted(one.features) == sorted(place[i] for i in group)
        unit = torch.nn.functional.normalize(W_dec[list(one.features)], dim=-1)
        cosines = (unit @ unit.T).numpy()[~np.eye(len(unit), dtype=bool)]
        assert one.cosine == pytest.approx(float(cosines.mean()), abs=1e-5)
        near = [float(row.mean()) for row in unit @ unit.T]
        assert max(np.diff(near)) < 1e-5  # those nearest to the middle first
    assert sum(len(one.features) for one in found) == sum(map(len, groups))


def test_overlap_is_shared_over_all() -> None:
    assert overlap([1, 2, 3], [2, 3, 4, 5]) == (2, 0.4)
    assert overlap([], []) == (0, 0.0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        decoder_clusters(torch.eye(4), threshold=1.0)
    with pytest.raises(InputError, match="at least 1 neighbour"):
        decoder_clusters(torch.eye(4), neighbours=0)
