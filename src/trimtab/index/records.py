"""What an index says of a feature."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """Tokens of a text and a feature's activation on each; `at` is the token that it was chosen for."""

    kind: str  # top, random or band
    low: float | None  # edges of the band
    high: float | None
    value: float
    source: str
    document: int
    context: int
    position: int
    at: int
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Word:
    """A token that a feature fires on: how often it did, and how often the token was read."""

    token: int
    text: str
    count: int
    seen: int


@dataclass(frozen=True)
class Label:
    """What a feature was called, by which method, and how well that was found to tell where it fires (0.5: chance)."""

    text: str
    method: str
    score: float | None


@dataclass(frozen=True)
class Lens:
    """What a feature's decoder row points at. Tokens with their logits; neighbours with their cosines."""

    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    neighbours: tuple[tuple[int, float], ...]
    reads_writes: str
    output_score: float | None


@dataclass(frozen=True)
class Feature:
    """Everything that an index knows of one feature. `histogram`: (lower edge, upper edge, tokens)."""

    index: int
    count: int
    density: float
    mean: float | None  # over firing tokens; None where it is not known
    max: float
    histogram: tuple[tuple[float, float, int], ...]
    words: tuple[Word, ...]
    words_error: int
    partners: tuple[tuple[int, int], ...]
    partners_error: int
    sources: tuple[tuple[str, int], ...]
    examples: tuple[Example, ...]
    lens: Lens | None
    labels: tuple[Label, ...]
