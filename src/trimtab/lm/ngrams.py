"""How repetitive a list of tokens is. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence


def distinct(tokens: Sequence[int], n: int = 2) -> float | None:
    """Share of the n-grams of `tokens` that are different from each other (Li et al. 2016); None if there are none."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def repetition(tokens: Sequence[int], n: int = 4) -> float | None:
    """Share of the n-grams that occurred before in the same text (Welleck et al. 2020); None when there are none."""
    unlike = distinct(tokens, n)
    return None if unlike is None else 1 - unlike
