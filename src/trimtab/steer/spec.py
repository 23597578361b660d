"""The plain-data part of recipes: what an edit is, what it is made of, where a recipe comes from. No tensors."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator

from trimtab.sae.sae import Architecture
from trimtab.spec import UNITS, Op, Scope, Site, Spec, Unit

VALID_UNITS: Mapping[Op, tuple[Unit, ...]] = MappingProxyType(
    {
        "add": UNITS,
        "vector": ("raw", "norm"),
        "clamp": ("raw", "max_act"),
        "min": ("raw", "max_act"),
        "max": ("raw", "max_act"),
        "scale": ("raw",),
        "ablate": ("raw",),
        "project": ("raw",),
    }
)
Index = Annotated[int, Field(ge=0)]


class SaeRef(Spec):
    """Which SAE an edit's features belong to."""

    name: str
    fingerprint: str
    architecture: Architecture
    model_name: str | None = None
    d_in: Annotated[int, Field(ge=1)]
    d_sae: Annotated[int, Field(ge=1)]


class EditSpec(Spec):
    """Everything about an edit but its tensors; the form it has in a recipe file.

    `strengths` has one number per feature (for `ablate` zeros), or one for `vector` and for `project` (the component
    to set, 0 to remove the direction).
    """

    op: Op
    site: Site
    scope: Scope = Scope()
    unit: Unit = "raw"
    features: tuple[Index, ...] = ()
    strengths: tuple[float, ...]
    sae: SaeRef | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.unit not in VALID_UNITS[self.op]:
            raise ValueError(f"{self.op!r} takes no unit {self.unit!r}; valid: {', '.join(VALID_UNITS[self.op])}")
        if (self.sae is None) != (self.op in ("vector", "project")):
            raise ValueError(f"{self.op!r} {'takes no' if self.sae else 'needs an'} SAE")
        if self.sae is None:
            if self.features or len(self.strengths) != 1:
                raise ValueError(f"{self.op!r} takes one strength and no features")
            return self
        if not self.features:
            raise ValueError(f"{self.op!r} needs at least one feature")
        if len(self.strengths) != len(self.features) or len(set(self.features)) != len(self.features):
            raise ValueError("features must be distinct, with one strength each")
        for index in self.features:
            if index >= self.sae.d_sae:
                raise ValueError(
                    f"feature {index} is out of range: {self.sae.name} has features 0 to {self.sae.d_sae - 1}"
                )
        return self


class Setting(Spec):
    """A setting that led to a recipe, and whether a person chose it or it is the default."""

    value: JsonValue
    given: bool = False


class About(Spec):
    """Where a recipe comes from. Not part of what it does, so not part of its digest.

    reads: for a recipe of plain vectors, by fingerprint of an SAE, the features that show whether it works, with
    weights (negative: it should make them fire less).
    """

    model: str | None = None
    model_fingerprint: str | None = None
    contrast: str | None = None
    cluster: JsonValue = None
    reads: dict[str, dict[int, float]] = Field(default_factory=dict)
    settings: dict[str, Setting] = Field(default_factory=dict)
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
