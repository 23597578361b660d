"""Clusters of a whole SAE, without any text: groups of features whose decoder rows point the same way."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.grouping import decoder_components


@dataclass(frozen=True)
class DecoderCluster:
    """Features in one cluster, those nearest to its middle first. cosine: mean over pairs of their decoder rows."""

    features: tuple[int, ...]
    cosine: float


def decoder_clusters(W_dec: Tensor, threshold: float = 0.5, neighbours: int = 2) -> list[DecoderCluster]:
    """All clusters of more than one feature, largest first, by its decoder row in W_dec [d_sae, d_in] of any length.

    The graph of Engels et al. (2405.14860): each feature is joined to its `neighbours` nearest ones whose cosine is
    above `threshold`, and what hangs together is a cluster. Takes d_sae^2 x d_in multiplications, in slices.
    """
    if not 0 < threshold < 1:
        raise InputError(f"The cosine above which features are joined lies between 0 and 1, not {threshold:g}.")
    if neighbours < 1:
        raise InputError(f"Each feature needs at least 1 neighbour, not {neighbours}.")
    unit = torch.nn.functional.normalize(W_dec.float().cpu(), dim=-1)
    labels = decoder_components(unit, threshold, neighbours)
    order = np.argsort(labels, kind="stable")
    parts = np.split(order, np.searchsorted(labels[order], np.arange(labels.max(initial=-1) + 1)))[1:]
    found = [_cluster(unit, torch.from_numpy(members)) for members in parts]
    return sorted(found, key=lambda one: (-len(one.features), one.features))


def overlap(found: Collection[int], expected: Collection[int]) -> tuple[int, float]:
    """How many features two groups share, and their Jaccard index: shared over all."""
    both, either = set(found) & set(expected), set(found) | set(expected)
    return len(both), len(both) / max(len(either), 1)


def _cluster(unit: Tensor, members: Tensor) -> DecoderCluster:
    rows = unit[members]
    total = rows.sum(0)
    n = len(members)
    near = (rows @ total).argsort(descending=True, stable=True)
    return DecoderCluster(tuple(members[near].tolist()), float((total @ total - n) / (n * (n - 1))))
