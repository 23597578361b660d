"""Recipes: what to change in a model's residual stream, where, and how strongly. Plain frozen values.

    recipe = Recipe.add(sae, {8123: 1.5}) + Recipe.vector(direction, site=9, strength=0.2, unit="norm")
    with model.edited(recipe): ...

Strength always has a unit. For `add`: `raw` is the length added along the unit-normalised decoder row, in residual
units; `max_act` is a multiple of the feature's maximum activation times the decoder row as it is; `norm` is a
multiple of the residual's own norm at each position, along the unit-normalised row. For `clamp`, `min` and `max`:
`raw` is an activation, `max_act` a multiple of the maximum activation. `vector`: `raw` multiplies the vector as it
is given (its length counts), `norm` is as for `add`. `scale` takes a bare factor; `ablate` and `project` take none.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Self

import torch
from pydantic import Field, JsonValue, model_validator
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.spec import LATENT_OPS, UNITS, Op, Scope, Site, Spec, Unit, finite

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.lm.residual import SiteEdit
    from trimtab.sae.sae import SAE, Latents

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
    architecture: str
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
                raise ValueError(f"feature {index} is out of range: {self.sae.name} has features 0 to {self.sae.d_sae - 1}")
        return self


class Setting(Spec):
    """A setting that led to a recipe, and whether a person chose it or it is the default."""

    value: JsonValue
    given: bool = False


class About(Spec):
    """Where a recipe comes from. Not part of what it does, so not part of its digest."""

    model: str | None = None
    model_fingerprint: str | None = None
    contrast: str | None = None
    cluster: JsonValue = None
    settings: dict[str, Setting] = {}
    evidence: dict[str, JsonValue] = {}


@dataclass(frozen=True, eq=False)
class Edit:
    """One operation at one site.

    `tensors`, float32 on the CPU, are copies that nothing else holds (never write to them): `vector` [d] for `vector`
    and `project`; for the others `rows` [n, d] (decoder rows) and, where it is needed, `max_act` [n].
    `latents` evaluates the features, where the operation has to read them or to undo the SAE's normalisation.
    """

    spec: EditSpec
    tensors: Mapping[str, Tensor]
    latents: Latents | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the spec and every tensor, so over all that decides what the edit does."""
        return content_digest(self.spec, self.tensors)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A tuple of edits that apply together; all read the unedited residual and their changes are summed.

    Recipes are equal when their digests are. `+` joins. `recipe * number` and `-recipe` multiply the strengths of
    `add` and `vector` and the targets of `clamp`, `min` and `max` (so `0 * clamp` holds a feature at 0, which is not
    the unsteered model); `scale`, `ablate` and `project` have no strength to multiply and raise `InputError`.
    """

    edits: tuple[Edit, ...] = ()
    about: About = About()

    def __post_init__(self) -> None:
        _refuse_conflicts(self.edits)

    @classmethod
    def add(
        cls, sae: SAE, strengths: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None
    ) -> Recipe:
        """Add decoder rows to the residual, whatever the features do by themselves. Negative strengths point away."""
        return cls((_feature_edit("add", sae, strengths, unit, scope),))

    @classmethod
    def clamp(
        cls, sae: SAE, targets: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None
    ) -> Recipe:
        """Hold each feature's activation at its target (Templeton et al., 2024); the SAE's error term is kept."""
        return cls((_feature_edit("clamp", sae, targets, unit, scope),))

    @classmethod
    def min(cls, sae: SAE, floors: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None) -> Recipe:
        """Raise each feature's activation to at least the given value; higher activations are left alone."""
        return cls((_feature_edit("min", sae, floors, unit, scope),))

    @classmethod
    def max(cls, sae: SAE, ceilings: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None) -> Recipe:
        """Lower each feature's activation to at most the given value; lower activations are left alone."""
        return cls((_feature_edit("max", sae, ceilings, unit, scope),))

    @classmethod
    def scale(cls, sae: SAE, factors: Mapping[int, float], scope: Scope | None = None) -> Recipe:
        """Multiply each feature's activation by a factor: 1 changes nothing, 0 ablates."""
        return cls((_feature_edit("scale", sae, factors, "raw", scope),))

    @classmethod
    def ablate(cls, sae: SAE, features: Iterable[int], scope: Scope | None = None) -> Recipe:
        """Set the activation of these features to 0."""
        chosen = list(features)
        if len(set(chosen)) != len(chosen):
            raise InputError(f"Features to ablate must be distinct, not {chosen}.")
        return cls((_feature_edit("ablate", sae, dict.fromkeys(chosen, 0.0), "raw", scope),))

    @classmethod
    def vector(
        cls, vector: Tensor, site: Site | int | str, strength: float = 1.0, unit: Unit = "raw", scope: Scope | None = None
    ) -> Recipe:
        """Add `strength` times a plain vector [d] (`raw`), or times its direction and the residual's norm (`norm`)."""
        return cls((_vector_edit("vector", vector, site, strength, unit, scope),))

    @classmethod
    def project(
        cls, direction: Tensor, site: Site | int | str, target: float = 0.0, scope: Scope | None = None
    ) -> Recipe:
        """Set the residual's component along a direction [d] to `target`; 0 removes it (Arditi et al., 2024).

        Several directions at one site and scope are set together, exactly, even when they are not orthogonal.
        """
        return cls((_vector_edit("project", direction, site, target, "raw", scope),))

    def __add__(self, other: Recipe) -> Recipe:
        if not isinstance(other, Recipe):
            return NotImplemented
        return Recipe(self.edits + other.edits, self.about if other.about == About() else other.about)

    def __mul__(self, factor: float) -> Recipe:
        number = finite(factor, "The factor of a recipe")
        return replace(self, edits=tuple(_multiplied(edit, number) for edit in self.edits))

    __rmul__ = __mul__

    def __neg__(self) -> Recipe:
        return self * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return " + ".join(_as_code(edit.spec) for edit in self.edits) or "Recipe()"

    @property
    def features(self) -> dict[int, float]:
        """Feature index -> strength, in the order given; strengths of one feature are summed over `add` edits.

        Raises `InputError` when the recipe draws on several SAEs, whose indices mean different things.
        """
        saes = {edit.spec.sae.fingerprint: edit.spec.sae.name for edit in self.edits if edit.spec.sae}
        if len(saes) > 1:
            raise InputError(f"This recipe has features of several SAEs ({', '.join(saes.values())}); use .features_of(sae).")
        return self._features(next(iter(saes), None))

    def features_of(self, sae: SAE | SaeRef) -> dict[int, float]:
        """As `features`, of one SAE only; empty when the recipe does not use it."""
        return self._features(sae.fingerprint)

    def _features(self, fingerprint: str | None) -> dict[int, float]:
        found: dict[int, float] = {}
        for spec in (edit.spec for edit in self.edits):
            if spec.sae and spec.sae.fingerprint == fingerprint:
                for index, strength in zip(spec.features, spec.strengths, strict=True):
                    found[index] = strength + (found.get(index, 0.0) if spec.op == "add" else 0.0)
        return found

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that are edited, each once, in order of depth."""
        return tuple(sorted({edit.spec.site for edit in self.edits}, key=lambda site: site.layer))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of everything that decides what the recipe does; `about` is not part of it."""
        return hashlib.sha256("\n".join(edit.digest for edit in self.edits).encode()).hexdigest()

    def compile(self, model: Model) -> list[SiteEdit]:
        """The edits of this recipe for every row of a batch. Raises `MismatchError` when the model is another one."""
        from trimtab.steer.compile import compile_all

        return compile_all(self, model)

    @staticmethod
    def compile_rows(recipes: Sequence[Recipe | None], model: Model) -> list[SiteEdit]:
        """One recipe per batch row (None: unsteered); rows that share a site and scope are edited in one go."""
        from trimtab.steer.compile import compile_rows

        return compile_rows(recipes, model)

    def save(self, path: str | PathLike[str]) -> None:
        """Write one portable file (by custom `NAME.recipe.safetensors`), completely or not at all."""
        from trimtab.steer.recipe_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], sae: SAE | None = None) -> Recipe:
        """Read a recipe file and check it; with `sae`, also that it is the SAE the recipe was made with.

        `sae` is needed only for operations on latents of a TopK SAE, which depend on all features at once.
        Raises `FileError` for a damaged or foreign file and `MismatchError` for another SAE.
        """
        from trimtab.steer.recipe_file import load

        return load(path, sae)


def content_digest(spec: EditSpec, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a spec and its tensors (name, shape and bytes)."""
    digest = hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def owned(tensor: Tensor) -> Tensor:
    """A float32 CPU copy that shares no memory with the original."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def _feature_edit(op: Op, sae: SAE, strengths: Mapping[int, float], unit: Unit, scope: Scope | None) -> Edit:
    if not isinstance(strengths, Mapping) or not strengths:
        raise InputError(f"Recipe.{op} needs at least one feature, such as {{8123: 1.5}}, not {strengths!r}.")
    chosen = {_index(index, sae): finite(value, f"The strength of feature {index}") for index, value in strengths.items()}
    if unit not in VALID_UNITS[op]:
        raise InputError(f"Recipe.{op} takes no unit {unit!r}. Valid: {', '.join(map(repr, VALID_UNITS[op]))}.")
    indices = list(chosen)
    tensors = {"rows": owned(sae.rows(indices))}
    if op == "add" and unit in ("raw", "norm"):
        _refuse_where(tensors["rows"].norm(dim=1) == 0, indices, sae, "has a decoder row of zeros, so no direction")
    if unit == "max_act":
        if sae.max_act is None:
            raise InputError(f"{sae.name} records no maximum activations, which unit 'max_act' needs; use unit='raw'.")
        tensors["max_act"] = owned(sae.max_act[indices])
        _refuse_where(tensors["max_act"] <= 0, indices, sae, "never fired (maximum activation 0); use unit='raw'")
    spec = EditSpec(
        op=op, site=sae.site, scope=scope or Scope(), unit=unit, features=tuple(indices),
        strengths=tuple(chosen.values()), sae=sae_ref(sae),
    )  # fmt: skip
    reads = op in LATENT_OPS or (unit == "max_act" and sae.normalisation != "none")
    if reads and not sae.positionwise:
        raise UnsupportedError(
            f"{sae.name} normalises over whole sequences, so its activations are not known while a text is being written; "
            "use Recipe.add with unit 'raw' or 'norm'."
        )
    return Edit(spec, MappingProxyType(tensors), sae.latents(indices) if reads else None)


def _vector_edit(
    op: Op, vector: Tensor, site: Site | int | str, strength: float, unit: Unit, scope: Scope | None
) -> Edit:
    if unit not in VALID_UNITS[op]:
        raise InputError(f"Recipe.{op} takes no unit {unit!r}. Valid: {', '.join(map(repr, VALID_UNITS[op]))}.")
    own = owned(torch.as_tensor(vector))
    if own.dim() != 1 or own.numel() == 0:
        raise InputError(f"Recipe.{op} needs a vector of shape [d], not {list(own.shape)}.")
    if not torch.isfinite(own).all():
        raise InputError(f"The vector for Recipe.{op} has a value that is not finite (NaN or infinity).")
    if not own.any():
        raise InputError(f"The vector for Recipe.{op} is zero everywhere, so it has no direction.")
    number = finite(strength, f"The strength of Recipe.{op}")
    spec = EditSpec(op=op, site=Site.of(site), scope=scope or Scope(), unit=unit, strengths=(number,))
    return Edit(spec, MappingProxyType({"vector": own}))


def sae_ref(sae: SAE) -> SaeRef:
    """The reference by which a recipe remembers an SAE."""
    return SaeRef(
        name=sae.name, fingerprint=sae.fingerprint, architecture=sae.architecture, model_name=sae.model_name,
        d_in=sae.d_in, d_sae=sae.d_sae,
    )  # fmt: skip


def _index(value: int, sae: SAE) -> int:
    try:
        index = operator.index(value)
    except TypeError:
        raise InputError(f"A feature is a whole number, not {value!r}.") from None
    if isinstance(value, bool) or not 0 <= index < sae.d_sae:
        raise InputError(f"Feature {value} is out of range: {sae.name} has features 0 to {sae.d_sae - 1}.")
    return index


def _refuse_where(wrong: Tensor, indices: list[int], sae: SAE, why: str) -> None:
    bad = [index for index, is_wrong in zip(indices, wrong.tolist(), strict=True) if is_wrong]
    if bad:
        raise InputError(f"Feature {', '.join(map(str, bad))} of {sae.name} {why}.")


def _refuse_conflicts(edits: tuple[Edit, ...]) -> None:
    """Two laws for one feature would be summed into something that neither asks for; only a range is meaningful."""
    seen: dict[tuple[str, Site, Scope, int], set[Op]] = {}
    for spec in (edit.spec for edit in edits):
        if spec.sae is None or spec.op not in LATENT_OPS:
            continue
        for index in spec.features:
            ops = seen.setdefault((spec.sae.fingerprint, spec.site, spec.scope, index), set())
            if ops and ops | {spec.op} != {"min", "max"} or spec.op in ops:
                raise InputError(
                    f"Feature {index} of {spec.sae.name} gets {' and '.join([*sorted(ops), spec.op])} at {spec.site}; "
                    "only min and max can be joined on one feature."
                )
            ops.add(spec.op)


def _multiplied(edit: Edit, factor: float) -> Edit:
    spec = edit.spec
    if spec.op in ("scale", "ablate", "project"):
        raise InputError(f"A recipe with {spec.op!r} has no strength to multiply; build it with the value you want.")
    strengths = tuple(finite(strength * factor, "The multiplied strength") for strength in spec.strengths)
    return replace(edit, spec=spec.model_copy(update={"strengths": strengths}))


def _as_code(spec: EditSpec) -> str:
    if spec.sae is None:
        parts = ["<vector>", repr(str(spec.site)), f"{spec.strengths[0]:g}"]
    elif spec.op == "ablate":
        parts = [f"<{spec.sae.name}>", repr(list(spec.features))]
    else:
        pairs = zip(spec.features, spec.strengths, strict=True)
        parts = [f"<{spec.sae.name}>", "{" + ", ".join(f"{i}: {s:g}" for i, s in pairs) + "}"]
    if len(VALID_UNITS[spec.op]) > 1:
        parts.append(f"unit={spec.unit!r}")
    if spec.scope != Scope():
        given = {k: v for k, v in spec.scope if v != getattr(Scope(), k)}
        parts.append(f"scope=Scope({', '.join(f'{k}={v!r}' for k, v in given.items())})")
    return f"Recipe.{spec.op}({', '.join(parts)})"
