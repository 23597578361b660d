"""The object of the package steering-vectors: `SteeringVector(layer_activations={N: tensor [d]}, layer_type=...)`.

The package itself saves nothing; people pickle the object, and trimtab reads no pickles. So the file is safetensors:
tensors `layer_activations.N` and the metadata `layer_type`. Layer N is the output of block N, as our sites count.
`to_object` and `from_object` go by way of the class itself, where it is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from trimtab.errors import FileError, InputError, UnsupportedError
from trimtab.files import write_file
from trimtab.steer.build import owned
from trimtab.steer.exchange.pushes import Notes, block_outputs, pushes, recipe_of
from trimtab.steer.tensor_file import read_tensors

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

NAME = "steering-vectors"
LAYER = re.compile(r"layer_activations\.([0-9]{1,6})")
_BLOCK = "decoder_block"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class TheirVector(Protocol):
    """What is used of their class."""

    layer_activations: Mapping[int, Tensor]
    layer_type: str


def write(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """One `layer_activations.N` for each site."""
    vectors, notes = pushes(recipe, NAME)
    tensors = {f"layer_activations.{n}": owned(vector) for n, vector in block_outputs(vectors, NAME).items()}
    with write_file(path) as part:
        save_file(tensors, part, {"layer_type": _BLOCK})
    return notes


def read(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """A `vector` edit for each layer. A pickled object is refused, with how to write it anew."""
    try:
        metadata, tensors = read_tensors(path, "safetensors")
    except FileError as error:
        if not path.is_file():
            raise
        raise FileError(
            f"{error} Pickled objects are not read; with the object `v`, write safetensors.torch.save_file("
            "{f'layer_activations.{n}': t.contiguous() for n, t in v.layer_activations.items()}, FILE, "
            "{'layer_type': v.layer_type})."
        ) from None
    found = {}
    for name, tensor in tensors.items():
        match = LAYER.fullmatch(name)
        if not match:
            raise InputError(f"it has a tensor {name[:60]!r}; those of a steering vector are layer_activations.N")
        found[int(match.group(1))] = tensor
    return _recipe(found, metadata.get("layer_type", _BLOCK))


def from_object(vector: TheirVector) -> tuple[Recipe, Notes]:
    """A recipe of a `SteeringVector`, with the multiplier 1."""
    return _recipe(vector.layer_activations, vector.layer_type)


def to_object(recipe: Recipe) -> tuple[Any, Notes]:
    """A `SteeringVector`. Raises `UnsupportedError` where the package steering-vectors is not installed."""
    try:
        from steering_vectors import SteeringVector  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UnsupportedError("This needs the package steering-vectors: pip install steering-vectors.") from None
    vectors, notes = pushes(recipe, NAME)
    return SteeringVector(layer_activations=block_outputs(vectors, NAME), layer_type=_BLOCK), notes


def _recipe(layers: Mapping[int, Tensor], layer_type: str) -> tuple[Recipe, Notes]:
    if layer_type != _BLOCK:
        raise InputError(f"it steers {layer_type!r}; trimtab edits the output of blocks, {_BLOCK!r}")
    for layer, tensor in layers.items():
        if tensor.dtype not in _FLOATS:
            raise InputError(f"layer {layer} has dtype {tensor.dtype}, which is not a floating-point number")
    return recipe_of(((n, layers[n].reshape(-1).float()) for n in sorted(layers)), NAME)
