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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING

from torch import Tensor

from trimtab.errors import InputError, MismatchError
from trimtab.spec import LATENT_OPS, Scope, Site, Unit, finite
from trimtab.steer.build import Edit, feature_edit, vector_edit
from trimtab.steer.spec import VALID_UNITS, About, EditSpec, SaeRef

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.lm.residual import SiteEdit
    from trimtab.sae.sae import SAE

_LONG = 120  # characters of code that fit into a sentence


@dataclass(frozen=True, eq=False)
class Recipe:
    """A tuple of edits that apply together; all read the unedited residual and their changes are summed.

    Recipes are equal when their digests are. `+` joins. `recipe * number` and `-recipe` multiply the strengths of
    `add` and `vector` and the targets of `clamp`, `min` and `max` (so `0 * clamp` holds a feature at 0, which is not
    the unsteered model); `scale`, `ablate` and `project` have no strength to multiply and raise `InputError`.
    What was measured of a recipe does not hold for another one: a product drops `about.evidence`, and a sum (but with
    an empty recipe) keeps only the model. `dataclasses.replace(recipe, about=...)` sets it.
    """

    edits: tuple[Edit, ...] = ()
    about: About = field(default_factory=About)

    def __post_init__(self) -> None:
        _refuse_conflicts(self.edits)

    @classmethod
    def add(
        cls, sae: SAE, strengths: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None
    ) -> Recipe:
        """Add decoder rows to the residual, whatever the features do by themselves. Negative strengths point away."""
        return cls((feature_edit("add", sae, strengths, unit, scope),))

    @classmethod
    def clamp(
        cls, sae: SAE, targets: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None
    ) -> Recipe:
        """Hold each feature's activation at its target (Templeton et al., 2024); the SAE's error term is kept."""
        return cls((feature_edit("clamp", sae, targets, unit, scope),))

    @classmethod
    def min(cls, sae: SAE, floors: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None) -> Recipe:
        """Raise each feature's activation to at least the given value; higher activations are left alone."""
        return cls((feature_edit("min", sae, floors, unit, scope),))

    @classmethod
    def max(cls, sae: SAE, ceilings: Mapping[int, float], unit: Unit = "max_act", scope: Scope | None = None) -> Recipe:
        """Lower each feature's activation to at most the given value; lower activations are left alone."""
        return cls((feature_edit("max", sae, ceilings, unit, scope),))

    @classmethod
    def scale(cls, sae: SAE, factors: Mapping[int, float], scope: Scope | None = None) -> Recipe:
        """Multiply each feature's activation by a factor: 1 changes nothing, 0 ablates."""
        return cls((feature_edit("scale", sae, factors, "raw", scope),))

    @classmethod
    def ablate(cls, sae: SAE, features: Iterable[int], scope: Scope | None = None) -> Recipe:
        """Set the activation of these features to 0."""
        chosen = list(features)
        if len(set(chosen)) != len(chosen):
            raise InputError(f"Features to ablate must be distinct, not {chosen}.")
        return cls((feature_edit("ablate", sae, dict.fromkeys(chosen, 0.0), "raw", scope),))

    @classmethod
    def vector(
        cls,
        vector: Tensor,
        site: Site | int | str,
        strength: float = 1.0,
        unit: Unit = "raw",
        scope: Scope | None = None,
    ) -> Recipe:
        """Add `strength` times a plain vector [d] (`raw`), or times its direction and the residual's norm (`norm`)."""
        return cls((vector_edit("vector", vector, site, strength, unit, scope),))

    @classmethod
    def project(
        cls, direction: Tensor, site: Site | int | str, target: float = 0.0, scope: Scope | None = None
    ) -> Recipe:
        """Set the residual's component along a direction [d] to `target`; 0 removes it (Arditi et al., 2024).

        Several directions at one site and scope are set together, exactly, even when they are not orthogonal.
        """
        return cls((vector_edit("project", direction, site, target, "raw", scope),))

    def __add__(self, other: Recipe) -> Recipe:
        if not isinstance(other, Recipe):
            return NotImplemented
        mine, theirs = self.about, other.about
        if mine.model_fingerprint and theirs.model_fingerprint and mine.model_fingerprint != theirs.model_fingerprint:
            raise MismatchError(
                f"These recipes were made for different models: {mine.model} ({mine.model_fingerprint}) and "
                f"{theirs.model} ({theirs.model_fingerprint})."
            )
        if not self.edits or not other.edits:  # nothing is added, so what is known of the other still holds
            return self if self.edits else other
        known = mine if mine.model_fingerprint else theirs
        return Recipe(self.edits + other.edits, About(model=known.model, model_fingerprint=known.model_fingerprint))

    def __mul__(self, factor: float) -> Recipe:
        number = finite(factor, "The factor of a recipe")
        reads = {sae: {i: w * number for i, w in some.items()} for sae, some in self.about.reads.items()}
        about = self.about.model_copy(update={"evidence": {}, "reads": reads})
        return Recipe(tuple(_multiplied(edit, number) for edit in self.edits), about)

    __rmul__ = __mul__

    def __neg__(self) -> Recipe:
        return self * -1.0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return " + ".join(_as_code(edit.spec) for edit in self.edits) or "Recipe()"

    def __str__(self) -> str:
        """As `repr`, or where that is long, what the recipe is made of in a few words."""
        code = repr(self)
        if len(code) <= _LONG:
            return code
        specs = [edit.spec for edit in self.edits]
        features = {(spec.sae.fingerprint, index) for spec in specs if spec.sae for index in spec.features}
        counts = {"feature": len(features), "vector": sum(spec.sae is None for spec in specs)}
        made = " and ".join(f"{n} {what}{'s' * (n > 1)}" for what, n in counts.items() if n)
        return f"a recipe of {made} at {self.sites[0]}" + f" to {self.sites[-1]}" * (len(self.sites) > 1)

    def made_for(self, model: Model) -> Recipe:
        """The same recipe, bound to this very model: `compile` and files refuse any other."""
        about = self.about.model_copy(update={"model": model.name, "model_fingerprint": model.fingerprint})
        return replace(self, about=about)

    @property
    def features(self) -> dict[int, float]:
        """Feature index -> strength, in the order given; strengths of one feature are summed over `add` edits.

        Raises `InputError` when the recipe draws on several SAEs, whose indices mean different things.
        """
        saes = {edit.spec.sae.fingerprint: edit.spec.sae.name for edit in self.edits if edit.spec.sae}
        if len(saes) > 1:
            raise InputError(
                f"This recipe has features of several SAEs ({', '.join(saes.values())}); use .features_of(sae)."
            )
        return self._features(next(iter(saes), None))

    def features_of(self, sae: SAE | SaeRef) -> dict[int, float]:
        """As `features`, of one SAE only; empty when the recipe does not use it."""
        return self._features(sae.fingerprint)

    def reads(self, sae: SAE) -> dict[int, float]:
        """The features of an SAE that show whether the recipe works: its own, or for plain vectors `about.reads`."""
        return self.features_of(sae) or dict(self.about.reads.get(sae.fingerprint, {}))

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


def _refuse_conflicts(edits: tuple[Edit, ...]) -> None:
    """Two laws for one feature would be summed into something that neither asks for; only a range is meaningful."""
    seen: dict[tuple[str, int], list[EditSpec]] = {}
    for spec in (edit.spec for edit in edits):
        if spec.sae is None or spec.op not in LATENT_OPS:
            continue
        for index in spec.features:
            others = seen.setdefault((spec.sae.fingerprint, index), [])
            for other in others:
                if {other.op, spec.op} != {"min", "max"} and _overlap(other.scope, spec.scope):
                    raise InputError(
                        f"Feature {index} of {spec.sae.name} is given both {other.op!r} and {spec.op!r} at the same "
                        "tokens; only 'min' and 'max' can be joined on one feature."
                    )
            others.append(spec)


def _overlap(a: Scope, b: Scope) -> bool:
    """Whether two scopes may select a common position (exclusions are not looked at)."""
    (start_a, stop_a), (start_b, stop_b) = (scope.window or (0, None) for scope in (a, b))
    apart = (stop_a is not None and stop_a <= start_b) or (stop_b is not None and stop_b <= start_a)
    return not apart and ((a.prompt and b.prompt) or (a.generated and b.generated))


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
