"""The index by brute force: plain Python over every firing, kept in full."""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import permutations

MASK = (1 << 64) - 1
EDGES = [struct.unpack("f", struct.pack("f", 2 ** (-20 + i / 4)))[0] for i in range(161)]


@dataclass(frozen=True)
class Piece:
    """A context as the reference sees it: per token None (left out) or {feature: activation}."""

    ids: list[int]
    fires: list[dict[int, float] | None]
    document: int
    source: str


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def hashed(seed: int, context: int, position: int, feature: int, kind: int) -> int:
    place = mix(mix(context ^ mix((seed & MASK) ^ 0x9E3779B97F4A7C15)) ^ position)
    return mix(place ^ mix(feature * 4 + kind + 1))


def bin_of(value: float) -> int:
    return min(159, max(0, bisect_right(EDGES, value) - 1))


def chosen(candidates: list[tuple[object, dict]], size: int, per_document: int) -> list[dict]:
    taken: list[dict] = []
    used: Counter[int] = Counter()
    for _, row in sorted(candidates, key=lambda one: one[0]):  # type: ignore[arg-type,return-value]
        if len(taken) < size and used[row["document"]] < per_document:
            used[row["document"]] += 1
            taken.append(row)
    return taken


def reference(pieces: list[Piece], spec: object, features: int) -> dict[int, dict]:
    """For each feature every number and example that the index must hold."""
    found: dict[int, dict] = {
        f: {"values": [], "words": Counter(), "partners": Counter(), "sources": Counter(), "offers": defaultdict(list)}
        for f in range(features)
    }
    for number, piece in enumerate(pieces):
        peaks: dict[int, int] = {}
        for position, fires in enumerate(piece.fires):
            for feature, value in (fires or {}).items():
                one = found[feature]
                one["values"].append(value)
                one["words"][piece.ids[position]] += 1
                one["sources"][piece.source] += 1
                if feature not in peaks or value > piece.fires[peaks[feature]][feature]:  # type: ignore[index]
                    peaks[feature] = position
                row = example(piece, number, position, feature, spec)
                key = hashed(spec.seed, number, position, feature, 1)  # type: ignore[attr-defined]
                one["offers"]["random"].append((key, row))
            strongest = sorted((fires or {}).items(), key=lambda kv: (-kv[1], kv[0]))[: spec.pairs]  # type: ignore[attr-defined]
            for (a, _), (b, _) in permutations(strongest, 2):
                found[a]["partners"][b] += 1
        for feature, position in peaks.items():
            row = example(piece, number, position, feature, spec)
            tie = hashed(spec.seed, number, position, feature, 0) >> 32  # type: ignore[attr-defined]
            found[feature]["offers"]["top"].append(((-row["value"], tie), row))
            key = hashed(spec.seed, number, position, feature, 2)  # type: ignore[attr-defined]
            found[feature]["offers"]["band", bin_of(row["value"]) // 2].append((key, row))
    for one in found.values():
        values = one["values"]
        one["count"], one["max"] = len(values), max(values, default=0.0)
        one["mean"] = math.fsum(values) / max(1, len(values))
        one["histogram"] = Counter(bin_of(value) for value in values)
        sizes = {"top": spec.top, "random": spec.random}  # type: ignore[attr-defined]
        one["examples"] = {
            group: chosen(offers, sizes.get(group, spec.per_band), spec.per_document)  # type: ignore[attr-defined]
            for group, offers in one["offers"].items()
        }
    return found


def example(piece: Piece, number: int, position: int, feature: int, spec: object) -> dict:
    begin = 1 if piece.fires[0] is None else 0
    start = max(begin, position - spec.before)  # type: ignore[attr-defined]
    stop = min(len(piece.ids), position + spec.after + 1)  # type: ignore[attr-defined]
    return {
        "value": (piece.fires[position] or {})[feature],
        "source": piece.source,
        "document": piece.document,
        "context": number,
        "position": position,
        "at": position - start,
        "ids": tuple(piece.ids[start:stop]),
        "values": tuple((fires or {}).get(feature, 0.0) for fires in piece.fires[start:stop]),
    }


def tally(windows: list[list[tuple[int, int]]], capacity: int, every: int) -> tuple[dict, Counter]:
    """Misra-Gries over (feature, item) pairs, pruned after every `every` windows: ({feature: Counter}, error)."""
    counts: dict[int, Counter] = defaultdict(Counter)
    error: Counter[int] = Counter()
    for number, window in enumerate(windows, 1):
        for feature, item in window:
            counts[feature][item] += 1
        if number % every == 0:
            for feature, items in counts.items():
                if len(items) > capacity:
                    cut = sorted(items.values(), reverse=True)[capacity]
                    error[feature] += cut
                    counts[feature] = Counter({i: n - cut for i, n in items.items() if n > cut})
    return counts, error
