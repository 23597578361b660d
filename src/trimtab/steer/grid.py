"""The grid of a sweep: which edits, on which prompts, with which seeds. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from trimtab.spec import Op, Sampling, Scope, Spec, Unit
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

OPS: tuple[Op, ...] = ("add", "clamp", "scale", "ablate", "min", "max")


class SweepSpec(Spec):
    """The grid. Every text is drawn as `generate(..., seed=seed)` would draw it.

    `unit` is that of `add`, `clamp`, `min` and `max`. `scale` takes bare factors, and `ablate` no strength, so that it
    stands once in the grid of a feature.
    """

    prompts: Annotated[tuple[str, ...], Field(min_length=1)]
    features: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    strengths: Annotated[tuple[float, ...], Field(min_length=1)] = (1.0,)
    ops: Annotated[tuple[Op, ...], Field(min_length=1)] = ("add",)
    unit: Unit = "max_act"
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0,)
    scope: Scope = Scope()
    sampling: Sampling = Sampling(max_new_tokens=60)

    @model_validator(mode="after")
    def _each_once(self) -> SweepSpec:
        for name in ("prompts", "features", "strengths", "ops", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has the same value twice: {list(values)}")
        if not set(self.ops) <= set(OPS):
            raise ValueError(f"ops are among {', '.join(OPS)}, not {list(self.ops)}")
        return self

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The unsteered cell, then every operation, feature and strength in the order given."""
        steered = (
            Cell(op, feature, strength)
            for op in self.ops
            for feature in self.features
            for strength in ((None,) if op == "ablate" else self.strengths)
        )
        return (Cell(None, None, None), *steered)

    @property
    def n_rows(self) -> int:
        """Texts in the whole grid."""
        return len(self.cells) * len(self.prompts) * len(self.seeds)


@dataclass(frozen=True)
class Cell:
    """One edit of the grid; all None for the unsteered texts, and no strength for `ablate`."""

    op: Op | None
    feature: int | None
    strength: float | None

    def recipe(self, sae: SAE, spec: SweepSpec) -> Recipe | None:
        """The edit as a recipe; None for the unsteered cell."""
        if self.op is None or self.feature is None:
            return None
        return recipe_of(self.op, sae, {self.feature: self.strength or 0.0}, spec)


def recipe_of(op: Op, sae: SAE, values: dict[int, float], spec: SweepSpec) -> Recipe:
    """One operation on some features, with the unit and scope of the grid."""
    match op:
        case "ablate":
            return Recipe.ablate(sae, values, scope=spec.scope)
        case "scale":
            return Recipe.scale(sae, values, scope=spec.scope)
        case "add":
            return Recipe.add(sae, values, spec.unit, spec.scope)
        case "clamp":
            return Recipe.clamp(sae, values, spec.unit, spec.scope)
        case "min":
            return Recipe.min(sae, values, spec.unit, spec.scope)
        case _:
            return Recipe.max(sae, values, spec.unit, spec.scope)
