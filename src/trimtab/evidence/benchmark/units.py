"""What a benchmark is made of: its settings, and its cells, each a unit of `trimtab.scale`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trimtab.errors import InputError
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.prompts import DEV, TEST
from trimtab.scale.unit import Unit
from trimtab.spec import Sampling, Spec

KIND = "benchmark"
UNSTEERED = "unsteered"


class BenchSpec(Spec):
    """How texts are written: the same for all cells of a folder. `dose_prompts`: strengths are chosen on unsteered
    texts that begin so; what the recipes then cost is measured on unsteered texts of `prompts`.
    """

    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = TEST
    dose_prompts: Annotated[tuple[str, ...], Field(min_length=1)] = DEV
    samples: Annotated[int, Field(ge=1)] = 8
    sampling: Sampling = Sampling(max_new_tokens=40)
    seed: int = 0

    @property
    def rows(self) -> int:
        """Texts of a cell."""
        return len(self.prompts) * self.samples


@dataclass(frozen=True)
class Cell:
    """One concept steered by one method at one KL budget (None for methods without one)."""

    concept: str
    method: str
    budget: float | None = None

    @property
    def id(self) -> str:
        """The name of its files, without an ending."""
        return f"{slug(self.concept)}--{slug(self.method)}" + ("" if self.budget is None else f"@{self.budget:g}")

    @property
    def unit(self) -> Unit:
        """The unit that makes, writes and judges it."""
        return Unit(self.id, self)


PLAIN = Unit(UNSTEERED)
"""The unsteered texts, which all cells need: those that judges compare with, and those that strengths are chosen on."""


def cells_of(concepts: Sequence[str], methods: Sequence[str], budgets: Sequence[float]) -> list[Cell]:
    """All cells, concept by concept, the unsteered texts first."""
    if not budgets or min(budgets) <= 0 or len(set(budgets)) < len(budgets):
        raise InputError(f"KL budgets must be different numbers above 0, not {list(budgets)}.")
    found = []
    for concept in concepts:
        found.append(Cell(concept, UNSTEERED))
        for method in methods:
            if METHODS[method].recipe is not None:
                found += [Cell(concept, method, budget) for budget in budgets]
            elif METHODS[method].prompt is not None:
                found.append(Cell(concept, method))
    if len({cell.id for cell in found}) < len(found):
        raise InputError("Two concepts have names that differ only in their punctuation.")
    return found


def slug(name: str) -> str:
    """A name as a part of file names; never with "--" in it."""
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "-"
