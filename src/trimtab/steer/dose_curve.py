"""What strengths do, as plain values: points, the curve that they make, and the dose that was chosen on it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trimtab.steer.strength import scaled

if TYPE_CHECKING:
    from trimtab.steer.dose_texts import Texts
    from trimtab.steer.recipe import Recipe

SAFE_NATS, SAFE_REPETITION = 0.5, 0.1
"""A strength is safe where text is at most this many nats per token less likely than unsteered text (perplexity 1.65
times), and at most this share more of its 4-grams are repeated; and so at every weaker strength that was measured."""

COLLAPSE_NATS, COLLAPSE_REPETITION = 1.0, 0.5
"""Text has collapsed where it is this many nats per token less likely (perplexity 2.7 times), or where this share of
its 4-grams are repeated: the rule by which `trimtab.evidence.verdict` calls a text degenerate."""


@dataclass(frozen=True)
class DosePoint:
    """What one strength does. `kl`: nats per token, `kl_error` its standard error over texts. `perplexity`: of the text
    written, under the unsteered model, as a multiple of that of unsteered text. `repetition`: share of 4-grams that
    occurred before. `response`: what the recipe's features do in the text, read by the unsteered model, in residual
    units. The last three are None where no text was written, the last also without an SAE.
    """

    factor: float
    kl: float
    kl_error: float
    perplexity: float | None = None
    repetition: float | None = None
    response: float | None = None


@dataclass(frozen=True, eq=False)
class DoseCurve:
    """The points of a recipe by factor, ascending; factor 1 is the recipe as it was given, below 0 it is turned round.

    `unsteered` is what the texts are compared with (None where none were written).
    """

    recipe: Recipe
    points: tuple[DosePoint, ...]
    unsteered: Texts | None

    @property
    def safe_range(self) -> tuple[float, float]:
        """The outermost factors, below and above 0, up to which every measured one is safe; 0 where none is."""
        low, high = (self._until(sign, lambda point: not self._is_safe(point))[0] for sign in (-1, 1))
        return low, high

    @property
    def collapse(self) -> tuple[float | None, float | None]:
        """The measured factors nearest to 0, below and above, at which text has collapsed; None where none has."""
        low, high = (self._until(sign, self._has_collapsed)[1] for sign in (-1, 1))
        return low, high

    def at(self, factor: float) -> DosePoint:
        """The point measured at this very factor."""
        return next(point for point in self.points if point.factor == factor)

    def strengths(self, factor: float) -> str:
        """The recipe's strengths at a factor, in its units, for people."""
        values = [s for edit in scaled(self.recipe, factor).edits for s in edit.spec.strengths]
        shown = ", ".join(f"{value:.3g}" for value in values[:3])
        return shown + (", ..." if len(values) > 3 else "")

    def state(self, point: DosePoint) -> str:
        """`safe`, `collapsed`, `strained` in between, or nothing where no text was written."""
        if point.perplexity is None:
            return ""
        low, high = self.safe_range
        if low <= point.factor <= high:
            return "safe"
        return "collapsed" if self._has_collapsed(point) else "strained"

    def in_words(self) -> str:
        """Where text stays safe and where it collapses, in both directions if both were measured."""
        parts = []
        for sign, end, broken in zip((-1, 1), self.safe_range, self.collapse, strict=True):
            if not any(point.factor * sign > 0 for point in self.points):
                continue
            where = "turned round, text" if sign < 0 else "Text"
            said = f"{where} stays safe up to {self._place(end)}" if end else f"{where} is safe at no strength measured"
            parts.append(said + (f" and collapses at {self._place(broken)}" if broken is not None else ""))
        text = "; ".join(reversed(parts))
        return text[:1].upper() + text[1:] + "."

    def _place(self, factor: float) -> str:
        return f"{factor:.3g} times (strength {self.strengths(factor)}; KL {self.at(factor).kl:.2f})"

    def to_json(self) -> str:
        """All of it as JSON text."""
        return json.dumps(self.as_dict(), indent=1)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "recipe": repr(self.recipe),
            "recipe_digest": self.recipe.digest,
            "safe_range": self.safe_range,
            "collapse": self.collapse,
            "unsteered": asdict(self.unsteered) if self.unsteered else None,
            "points": [asdict(point) for point in self.points],
        }

    def _until(self, sign: int, ends: Callable[[DosePoint], bool]) -> tuple[float, float | None]:
        """Going out from 0: the last factor before `ends` says so, and the first at which it does."""
        last = 0.0
        for point in sorted((p for p in self.points if p.factor * sign > 0), key=lambda p: abs(p.factor)):
            if ends(point):
                return last, point.factor
            last = point.factor
        return last, None

    def _is_safe(self, point: DosePoint) -> bool:
        if point.perplexity is None or point.repetition is None or self.unsteered is None:
            return False
        more = point.repetition - self.unsteered.repetition
        return math.log(point.perplexity) <= SAFE_NATS and more <= SAFE_REPETITION

    def _has_collapsed(self, point: DosePoint) -> bool:
        if point.perplexity is None or point.repetition is None:
            return False
        return math.log(point.perplexity) > COLLAPSE_NATS or point.repetition > COLLAPSE_REPETITION


@dataclass(frozen=True, eq=False)
class Chosen:
    """A dose that was chosen: `recipe` is the one asked about, times `factor`, and costs `kl` nats per token.

    `said` tells people what was chosen and why; `curve` is what was measured for it, if texts were written.
    """

    factor: float
    recipe: Recipe
    kl: float
    said: str
    curve: DoseCurve | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        curve = self.curve.as_dict() if self.curve else None
        return {"factor": self.factor, "recipe": repr(self.recipe), "kl": self.kl, "said": self.said, "curve": curve}
