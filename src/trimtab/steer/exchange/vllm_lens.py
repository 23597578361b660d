"""vllm-lens' wire JSON: `{"apply_steering_vectors": [{activations, layer_indices, scale, norm_match, ...}]}`.

`activations` is base64 of [layers, d] with its dtype and shape; layer N is the output of block N. Over HTTP the list
goes, as a JSON string, into `vllm_xargs`. vllm-lens writes zstd-compressed tensors and reads plain ones as well; ours
are plain.
"""

from __future__ import annotations

import base64
import binascii
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor

from trimtab.errors import InputError
from trimtab.files import write_json
from trimtab.steer.exchange.bounded import Foreign, read_json
from trimtab.steer.exchange.pushes import Notes, block_outputs, pushes, recipe_of

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

NAME = "vllm-lens"
_DTYPES = {
    ("float32", "torch.float32"): torch.float32,
    ("float16", "torch.float16"): torch.float16,
    ("int16", "torch.bfloat16"): torch.bfloat16,
}
Size = Annotated[int, Field(ge=0, le=2**31)]
Block = Annotated[int, Field(ge=0, le=10**6)]


class TheirTensor(Foreign):
    """A tensor on the wire."""

    data: str
    dtype: str
    original_dtype: str = "torch.float32"
    shape: list[Size]
    compression: str | None = None


class TheirVector(Foreign):
    """One steering vector."""

    activations: TheirTensor
    layer_indices: Annotated[list[Block], Field(min_length=1)]
    scale: float = 1.0
    norm_match: bool = False
    position_indices: list[int] | None = None


class Body(Foreign):
    """The part of a request that steers."""

    apply_steering_vectors: Annotated[list[TheirVector], Field(min_length=1)]


def write(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """One steering vector with a row for each site."""
    vectors, notes = pushes(recipe, NAME)
    by_block = block_outputs(vectors, NAME)
    stacked = torch.stack(list(by_block.values())).numpy()
    tensor = {
        "data": base64.b64encode(stacked.astype("<f4").tobytes()).decode("ascii"),
        "dtype": "float32",
        "original_dtype": "torch.float32",
        "shape": list(stacked.shape),
    }
    vector = {"activations": tensor, "layer_indices": list(by_block), "scale": 1.0, "norm_match": False}
    write_json(path, {"apply_steering_vectors": [vector]})
    return notes


def read(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """A `vector` edit for each layer of each vector."""
    found: list[tuple[int, Tensor]] = []
    for one in Body.parse(read_json(path)).apply_steering_vectors:
        if one.norm_match:
            raise InputError("norm_match keeps the residual's length, which adding a vector does not")
        rows = _tensor(one.activations)
        if one.position_indices is not None or rows.dim() != 2:
            raise InputError("it steers single positions (position_indices, or activations that are not [layers, d])")
        if len(rows) != len(one.layer_indices):
            raise InputError(f"it has {len(rows)} rows for {len(one.layer_indices)} layers")
        found += [(layer, one.scale * row) for layer, row in zip(one.layer_indices, rows, strict=True)]
    return recipe_of(found, NAME)


def _tensor(wire: TheirTensor) -> Tensor:
    if wire.compression is not None:
        raise InputError(f"its tensors are compressed ({wire.compression[:20]}); write them without compression")
    dtype = _DTYPES.get((wire.dtype, wire.original_dtype))
    if dtype is None:
        raise InputError(f"its tensor is {wire.dtype[:20]!r} for {wire.original_dtype[:20]!r}, which is not known")
    try:
        raw = base64.b64decode(wire.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"its tensor is not base64 ({error})") from None
    if len(raw) != math.prod(wire.shape) * dtype.itemsize or not raw:
        raise InputError(f"its tensor has {len(raw)} bytes, which is not {wire.shape} of {wire.dtype}")
    return torch.frombuffer(bytearray(raw), dtype=dtype).reshape(wire.shape).float()
