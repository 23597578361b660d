"""What a request says about steering, and the recipe that it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trimtab.errors import InputError
from trimtab.spec import Scope, Spec, Unit
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.serve.recipes import RecipeFolder

RecipeId = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$",
        description="Name of a recipe in the server's folder: lower-case letters, digits, dot, dash, underscore.",
        examples=["sea"],
    ),
]
Bounded = Annotated[float, Field(ge=-10_000, le=10_000)]


class FeatureStrength(Spec):
    """One feature of the SAE."""

    feature: Annotated[int, Field(ge=0, le=2**31, description="The feature's index.", examples=[11330])]
    strength: Annotated[
        Bounded, Field(description="How much, in the unit; negative points away. Ignored by ablate.", examples=[0.5])
    ] = 1.0


class Steering(Spec):
    """What to change while the text is written: a saved recipe, features, or both together."""

    recipe: Annotated[RecipeId | None, Field(description="A saved recipe.")] = None
    factor: Annotated[Bounded, Field(description="The saved recipe's strengths are multiplied by this.")] = 1.0
    features: Annotated[
        tuple[FeatureStrength, ...], Field(max_length=256, description="Features to edit; each at most once.")
    ] = ()
    edit: Annotated[
        Literal["add", "clamp", "scale", "ablate", "min", "max"],
        Field(
            description="add: the feature's direction, whatever it does by itself. clamp: hold its activation at the "
            "value. min, max: at least, at most the value. scale: multiply it. ablate: set it to 0."
        ),
    ] = "add"
    unit: Annotated[
        Unit | None,
        Field(
            description="max_act (the default): multiples of the feature's largest activation. norm: of the residual's "
            "norm (add only). raw: length in the residual stream (clamp, min, max: an activation). None for scale and "
            "ablate."
        ),
    ] = None
    scope: Annotated[Scope | None, Field(description="Which tokens are edited; by default all but BOS.")] = None
    sae: Annotated[str | None, Field(description="Name of the SAE; by default the server's first.")] = None


Wanted = Annotated[
    RecipeId | Steering | Annotated[tuple[RecipeId | Steering, ...], Field(max_length=16)],
    Field(description="A recipe's id, an object, or a list of these that apply together."),
]


def recipe_of(
    wanted: str | Steering | Sequence[str | Steering], saes: Mapping[str, SAE], folder: RecipeFolder
) -> Recipe:
    """The recipe that a request asks for. Raises `InputError`, or `ApiError` 404 for an id that is not there."""
    parts = [wanted] if isinstance(wanted, (str, Steering)) else list(wanted)
    recipe = Recipe()
    for part in parts:
        one = Steering(recipe=part) if isinstance(part, str) else part
        if one.recipe is None and not one.features:
            raise InputError("steering names neither a recipe nor features.")
        if one.recipe is not None:
            saved = folder.load(one.recipe)
            recipe += saved if one.factor == 1 else saved * one.factor
        if one.features:
            recipe += of_features(one, saes)
    return recipe


def of_features(one: Steering, saes: Mapping[str, SAE]) -> Recipe:
    """The edit of features that an object describes."""
    if not saes:
        raise InputError("This server has no SAE, so it cannot steer with features; use a saved recipe.")
    sae = next(iter(saes.values())) if one.sae is None else saes.get(one.sae)
    if sae is None:
        raise InputError(f"Unknown SAE {one.sae!r}. Valid: {', '.join(saes)}.")
    values = {item.feature: item.strength for item in one.features}
    if len(values) < len(one.features):
        raise InputError("A feature is given twice.")
    if one.edit in ("scale", "ablate") and one.unit is not None:
        raise InputError(f"{one.edit!r} takes no unit.")
    unit = one.unit or "max_act"
    match one.edit:
        case "add":
            return Recipe.add(sae, values, unit, one.scope)
        case "clamp":
            return Recipe.clamp(sae, values, unit, one.scope)
        case "min":
            return Recipe.min(sae, values, unit, one.scope)
        case "max":
            return Recipe.max(sae, values, unit, one.scope)
        case "scale":
            return Recipe.scale(sae, values, one.scope)
        case "ablate":
            return Recipe.ablate(sae, values, one.scope)
