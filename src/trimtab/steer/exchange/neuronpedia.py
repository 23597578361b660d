"""Neuronpedia: a vector for `POST /api/vector/new`, and a steering request for `POST /api/steer`.

A request names features by `modelId`, source id (`"{layer}-{set}"`) and index, and a strength: the length added along
the feature's decoder row of length 1, which is our unit `raw`. Both edit every token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from trimtab.errors import InputError, UnsupportedError
from trimtab.files import write_json
from trimtab.spec import finite
from trimtab.steer.build import Edit
from trimtab.steer.exchange.bounded import Foreign, numbers, read_json
from trimtab.steer.exchange.pushes import EVERY_TOKEN, Notes, edits, fixed, one_site, pushes, recipe_of, scope_notes
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

VECTOR, STEER = "neuronpedia-vector", "neuronpedia-steer"
WIDEST = 24_576  # numbers in a vector, by Neuronpedia's own rule
_HOOKS = {"hook_resid_post": 0, "resid-post": 0, "hook_resid_pre": -1, "resid-pre": -1}


class TheirVector(Foreign):
    """The body of `POST /api/vector/new`."""

    modelId: str
    layerNumber: Annotated[int, Field(ge=0, le=10**6)]
    hookType: str
    vector: Annotated[list[float], Field(min_length=1, max_length=WIDEST)]
    vectorDefaultSteerStrength: float = 1.0


class TheirFeature(Foreign):
    """A feature in a steering request."""

    modelId: str
    layer: str
    index: Annotated[int, Field(ge=0)]
    strength: float


class TheirRequest(Foreign):
    """The body of `POST /api/steer`."""

    features: Annotated[list[TheirFeature], Field(min_length=1)]
    strength_multiplier: float = 1.0
    steer_method: str = "SIMPLE_ADDITIVE"


def write_vector(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """A vector to upload, for the model that Neuronpedia calls `name`; its default strength 1 is this recipe."""
    if not name:
        raise InputError("Say which model of Neuronpedia's the vector is for: --name gemma-3-270m.")
    vectors, notes = pushes(recipe, VECTOR)
    site, vector = one_site(vectors, VECTOR)
    if site.layer < 0:
        raise UnsupportedError(f"The format {VECTOR} starts at the output of block 0, so it has no {site}.")
    if len(vector) > WIDEST:
        raise UnsupportedError(
            f"Neuronpedia takes vectors of at most {WIDEST:,} numbers; this one has {len(vector):,}."
        )
    body = {
        "modelId": name,
        "layerNumber": site.layer,
        "hookType": "hook_resid_post",
        "vector": vector.tolist(),
        "vectorDefaultSteerStrength": 1,
        "vectorLabel": f"trimtab {recipe.digest[:12]}",
    }
    write_json(path, body)
    return notes


def read_vector(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """The vector at its default strength, as one `vector` edit."""
    body = TheirVector.parse(read_json(path))
    if body.hookType not in _HOOKS:
        raise InputError(f"its hookType is {body.hookType[:40]!r}; valid: {', '.join(_HOOKS)}")
    vector = numbers(body.vector, "its vector") * body.vectorDefaultSteerStrength
    return recipe_of([(body.layerNumber + _HOOKS[body.hookType], vector)], VECTOR, body.modelId)


def write_steer(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """A steering request with the recipe's features; `name` is MODEL/SOURCE, as in Neuronpedia's addresses."""
    model, slash, source = (name or "").partition("/")
    if not (model and slash and source):
        raise InputError(
            "Say which source of Neuronpedia's the features are in: --name gemma-2-2b/20-gemmascope-res-16k."
        )
    strengths: dict[int, float] = {}
    notes = scope_notes(recipe, STEER)
    for edit in edits(recipe):
        for index, strength in raw_strengths(edit, STEER).items():
            strengths[index] = strengths.get(index, 0.0) + strength
    saes = {edit.spec.sae.fingerprint for edit in recipe.edits if edit.spec.sae}
    layer = recipe.sites[0].layer
    if len(saes) > 1:
        raise UnsupportedError(
            f"The format {STEER} is written for one source, and this recipe draws on {len(saes)} SAEs."
        )
    if source.partition("-")[0] != str(layer):
        raise InputError(f"The recipe is of block {layer}, so its source is called {layer}-..., not {source!r}.")
    body = {
        "prompt": "",
        "modelId": model,
        "features": [
            {"modelId": model, "layer": source, "index": i, "strength": strength} for i, strength in strengths.items()
        ],
        "temperature": 1,
        "n_tokens": 60,
        "freq_penalty": 0,
        "seed": 0,
        "strength_multiplier": 1,
        "steer_method": "SIMPLE_ADDITIVE",
    }
    write_json(path, body)
    return (*notes, "The prompt is empty: fill in yours.")


def read_steer(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """An `add` edit of the features; `sae` must be the source's SAE, since a request holds no vectors."""
    body = TheirRequest.parse(read_json(path))
    if sae is None:
        raise InputError("it names features and holds no vectors: give the SAE they belong to (--sae)")
    if body.steer_method != "SIMPLE_ADDITIVE":
        raise InputError(f"its steer_method is {body.steer_method[:40]!r}; only SIMPLE_ADDITIVE adds vectors")
    strengths: dict[int, float] = {}
    for one in body.features:
        if one.layer.partition("-")[0] != str(sae.site.layer):
            raise InputError(f"its feature {one.index} is in {one.layer[:60]!r}, and {sae.name} is of {sae.site}")
        if one.index in strengths:
            raise InputError(f"it has feature {one.index} twice")
        strengths[one.index] = one.strength * body.strength_multiplier
    notes = (f"That {body.features[0].layer[:60]!r} is the SAE {sae.name} cannot be checked.",)
    return Recipe.add(sae, strengths, unit="raw", scope=EVERY_TOKEN), notes


def raw_strengths(edit: Edit, format: str) -> dict[int, float]:
    """Feature -> length added along its decoder row of length 1. Refuses what is not `add` of fixed lengths."""
    spec = edit.spec
    if spec.op == "vector":
        raise UnsupportedError(f"The format {format} names features of an SAE, and this recipe adds a plain vector.")
    fixed(edit, format)
    lengths = [1.0] * len(spec.features)
    if spec.unit == "max_act":
        lengths = (edit.tensors["max_act"] * edit.tensors["rows"].norm(dim=1)).tolist()
    return {
        index: finite(strength * length, f"The length added for feature {index}")
        for index, strength, length in zip(spec.features, spec.strengths, lengths, strict=True)
    }
