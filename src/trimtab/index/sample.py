"""Bounded samples whose content depends on what was seen, never on the order or the pieces in which it came.

Each candidate has a key of 64 bits, and the smallest keys of a group are kept: for the strongest examples the key is
the activation turned round, for random ones a hash of (seed, feature, context, position), so a sample is uniform and
needs no random state (bottom-k sampling, Cohen and Kaplan 2007). With at most `per_document` of a group from one
document the kept sets are the bases of a matroid, so the best of a union is the best of the parts' best.
"""

from __future__ import annotations

import numpy as np

from trimtab.sae.firing import stable_order

TOP, RANDOM, BAND = 0, 1, 2
KINDS = ("top", "random", "band")

# Activations are binned on a fixed scale, so that no second pass is needed: quarters of an octave for histograms, half
# octaves (two bins) for bands. What lies outside 2^-20 to 2^20 goes into the first or last bin.
LOWEST, BINS = -20, 160
BIN_EDGES = np.exp2(LOWEST + np.arange(BINS + 1) / 4).astype(np.float32)
_QUARTERS = [int(edge) & 0x7FFFFF for edge in np.exp2(np.arange(1, 4) / 4).astype(np.float32).view(np.int32)]
BANDS = BINS // 2
GROUPS = BANDS + 2  # of each feature: top, random, and one for each band


def bins(value: np.ndarray) -> np.ndarray:
    """The histogram bin of each positive float32, 0 to BINS - 1: bin i holds [BIN_EDGES[i], BIN_EDGES[i + 1])."""
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.int32)
    quarter = ((bits >> 23) - (127 + LOWEST)) * 4
    rest = bits & 0x7FFFFF
    for edge in _QUARTERS:
        quarter += rest >= edge
    return np.clip(quarter, 0, BINS - 1)


def mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea and Flood 2014): 64 bits in, 64 well mixed bits out."""
    x = x.astype(np.uint64)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def place_hash(seed: int, context: np.ndarray, position: np.ndarray) -> np.ndarray:
    """A hash of each (context number, position), uint64."""
    seeded = np.uint64(seed & 0xFFFFFFFFFFFFFFFF) ^ np.uint64(0x9E3779B97F4A7C15)
    return mix(mix(context.astype(np.uint64) ^ mix(np.array([seeded]))) ^ position.astype(np.uint64))


def salts(features: int) -> np.ndarray:
    """What tells features and kinds apart in `random_key`, [kinds, features] uint64."""
    feature = np.arange(features, dtype=np.uint64) * np.uint64(4)
    return np.stack([mix(feature + np.uint64(kind + 1)) for kind in range(len(KINDS))])


def random_key(place: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """The key of candidates of a random kind: smallest wins. `salt`: of each one's kind and feature."""
    return mix(place ^ salt)


def top_key(value: np.ndarray, place: np.ndarray, salt: np.ndarray) -> np.ndarray:
    """The key of the strongest: positive float32 values sort as their bits do; ties are broken by the hash."""
    bits = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32).astype(np.uint64)
    tie = random_key(place, salt) >> np.uint64(32)
    return ((np.uint64(0xFFFFFFFF) - bits) << np.uint64(32)) | tie


def best(group: np.ndarray, key: np.ndarray, document: np.ndarray, sizes: np.ndarray, per_document: int) -> np.ndarray:
    """Which candidates are kept: in each group the `sizes[group]` smallest keys, at most `per_document` of a document.

    `sizes` is [candidates]. Returns indices, ordered by (group, key).
    """
    order = _by_key(group, key, document)
    if not len(order):
        return order
    by_document = order[_stable_by_document(group[order], document[order])]
    nth = rank(group[by_document], document[by_document])
    allowed = np.zeros(len(group), dtype=bool)
    allowed[by_document] = nth < per_document
    order = order[allowed[order]]
    return order[rank(group[order]) < sizes[order]]


def _by_key(group: np.ndarray, key: np.ndarray, document: np.ndarray) -> np.ndarray:
    """By group, then key, then document: np.lexsort, but keys are nearly always different, and plain numbers of 64
    bits and those of 16 are sorted several times as fast as anything else.
    """
    order = np.argsort(key)
    order = order[stable_order(group[order] & 0xFFFF)]
    order = order[stable_order(group[order] >> 16)]
    same = (group[order[1:]] == group[order[:-1]]) & (key[order[1:]] == key[order[:-1]])
    return np.lexsort((document, key, group)) if same.any() else order


def _stable_by_document(group: np.ndarray, document: np.ndarray) -> np.ndarray:
    """A stable order by group, then document, of groups that ascend."""
    low = int(document.min())
    bits = (int(document.max()) - low).bit_length()
    if bits + int(group[-1]).bit_length() > 63:
        return np.lexsort((document, group))
    return np.argsort((group << bits) | (document - low), kind="stable")


def rank(*sorted_by: np.ndarray) -> np.ndarray:
    """How many equal entries stand before each one, when equal ones stand together, [n]."""
    n = len(sorted_by[0])
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    new = np.ones(n, dtype=bool)
    new[1:] = np.any([part[1:] != part[:-1] for part in sorted_by], axis=0)
    first = np.flatnonzero(new)
    return np.arange(n) - np.repeat(first, np.diff(np.append(first, n)))
