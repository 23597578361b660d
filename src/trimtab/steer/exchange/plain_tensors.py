"""Vectors for one's own code: a safetensors file, and beside it a JSON file that says what each tensor does.

The JSON names, for every tensor [d], the operation (`vector`: add it, `project`: remove or set its component), the
site, the unit, the strength and the scope; so every recipe without operations on latents can be written, exactly.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.files import write_file, write_json
from trimtab.spec import LATENT_OPS, Scope, Spec, Unit
from trimtab.steer.build import Edit, owned, vector_edit
from trimtab.steer.compile import added_vector
from trimtab.steer.exchange.bounded import read_bytes, read_json
from trimtab.steer.exchange.pushes import Notes, edits
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import About
from trimtab.steer.tensor_file import read_tensors

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

NAME = "tensors"


class Entry(Spec):
    """What one tensor does."""

    tensor: str
    op: Literal["vector", "project"]
    site: Annotated[str, Field(max_length=60)]
    unit: Unit
    strength: float
    scope: Scope


class Sheet(Spec):
    """The JSON file. `sha256` is that of the safetensors file; `recipe` says what it was made of, for people."""

    format: Literal["trimtab-vectors"] = "trimtab-vectors"
    version: Literal[1] = 1
    model: str | None = None
    model_fingerprint: str | None = None
    recipe: str = ""
    sha256: str
    edits: Annotated[tuple[Entry, ...], Field(min_length=1)]


def write(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """Write PATH.safetensors and PATH.json. `name` takes the place of the model's name."""
    _check_suffix(path)
    entries, tensors = [], {}
    for number, edit in enumerate(edits(recipe)):
        vector, unit, strength = _as_vector(edit)
        if not bool(vector.any()):
            continue
        tensors[str(number)] = owned(vector)
        spec = edit.spec
        entries.append(
            Entry(
                tensor=str(number), op="project" if spec.op == "project" else "vector", site=str(spec.site), unit=unit,
                strength=strength, scope=spec.scope,
            )
        )  # fmt: skip
    if not entries:
        raise InputError("The recipe adds nothing anywhere (its strengths are 0), so there is nothing to export.")
    with write_file(path) as part:
        save_file(tensors, part)
        digest = hashlib.sha256(part.read_bytes()).hexdigest()
    about = recipe.about
    sheet = Sheet(
        model=name or about.model, model_fingerprint=about.model_fingerprint, recipe=repr(recipe), sha256=digest,
        edits=tuple(entries),
    )  # fmt: skip
    write_json(path.with_suffix(".json"), sheet.model_dump(mode="json"))
    return (f"What each tensor does is in {path.with_suffix('.json').name}.",)


def read(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """The same edits again, for the same model."""
    _check_suffix(path)
    sheet = Sheet.parse(read_json(path.with_suffix(".json")))
    if hashlib.sha256(read_bytes(path)).hexdigest() != sheet.sha256:
        raise InputError(f"it is not the file that {path.with_suffix('.json').name} was written for")
    _, tensors = read_tensors(path, "safetensors")
    built = []
    for entry in sheet.edits:
        if entry.tensor not in tensors:
            raise InputError(f"it has no tensor {entry.tensor!r}")
        vector = tensors[entry.tensor]
        if vector.dtype != torch.float32:
            raise InputError(f"its tensor {entry.tensor!r} has dtype {vector.dtype}, not torch.float32")
        built.append(vector_edit(entry.op, vector, entry.site, entry.strength, entry.unit, entry.scope))
    return Recipe(tuple(built), About(model=sheet.model, model_fingerprint=sheet.model_fingerprint)), ()


def _as_vector(edit: Edit) -> tuple[Tensor, Unit, float]:
    """Vector [d], unit and strength of a `vector` or `project` edit that does what this edit does."""
    spec = edit.spec
    if spec.op in LATENT_OPS:
        raise UnsupportedError(
            f"The format {NAME} holds vectors, and {spec.op!r} of features depends on what fires at each token; keep "
            "the recipe file."
        )
    if edit.latents is not None:
        assert spec.sae is not None
        raise UnsupportedError(f"The format {NAME} holds fixed vectors, and {spec.sae.name} rescales its input.")
    if spec.op in ("vector", "project"):
        return edit.tensors["vector"], spec.unit, spec.strengths[0]
    added = added_vector(edit)
    if not bool(added.isfinite().all()):
        raise InputError(f"What the recipe adds at {spec.site} is too large for float32, so it cannot be exported.")
    return (added, "norm", float(added.norm())) if spec.unit == "norm" else (added, "raw", 1.0)


def _check_suffix(path: Path) -> None:
    if path.suffix != ".safetensors":
        raise InputError(f"The format {NAME} is a file NAME.safetensors with NAME.json beside it, not {path.name!r}.")
