"""GGUF control vectors, as llama.cpp, repeng and EasySteer read them.

Tensors are `direction.N`, float32, one-dimensional. llama.cpp's loader puts `direction.N` at place N - 1 of a buffer
that starts with layer 1, and adds it to the output of block N, counted from 0; repeng and EasySteer count in the same
way. So N is the `layer` of our site, and llama.cpp has no vector for block 0. It reads no metadata; repeng and
EasySteer want `controlvector.model_hint`.

The reader is our own: the gguf package believes the counts in a header, so a file of 100 bytes can keep it busy for
ever. Ours takes nothing that the file does not hold.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.files import write_file
from trimtab.steer.exchange.bounded import read_bytes
from trimtab.steer.exchange.pushes import Notes, block_outputs, pushes, recipe_of

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

NAME = "gguf"
DIRECTION = re.compile(r"direction\.([0-9]{1,6})")
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY, _FLOAT32 = 8, 9, 0
_NO_HINT = "unknown"  # repeng and EasySteer refuse a file without one


def write(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """One `direction.N` for each site. `name` is the model hint, by custom the architecture, such as gemma3."""
    from gguf import GGUFWriter

    vectors, notes = pushes(recipe, NAME)
    by_block = block_outputs(vectors, NAME, first=1)
    with write_file(path) as part:
        writer = GGUFWriter(part, "controlvector")
        writer.add_string("controlvector.model_hint", name or recipe.about.model or _NO_HINT)
        writer.add_uint32("controlvector.layer_count", len(by_block))
        for layer, vector in by_block.items():
            writer.add_tensor(f"direction.{layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return notes


def read(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """A `vector` edit for each `direction.N`."""
    metadata, tensors = parse(read_bytes(path))
    if metadata.get("general.architecture") != "controlvector":
        raise InputError(f"its architecture is {metadata.get('general.architecture')!r}, not 'controlvector'")
    vectors = []
    for name, tensor in tensors.items():
        found = DIRECTION.fullmatch(name)
        if not found:
            raise InputError(
                f"it has a tensor {name[:60]!r}; those of a control vector are direction.1, direction.2, ..."
            )
        vectors.append((int(found.group(1)), tensor))
    hint = metadata.get("controlvector.model_hint")
    said = hint if isinstance(hint, str) and hint != _NO_HINT else None
    return recipe_of(sorted(vectors, key=lambda pair: pair[0]), NAME, said)


@dataclass
class _Cursor:
    """A place in some bytes, that cannot be moved beyond their end."""

    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise InputError(f"it ends at byte {len(self.data)}, in the middle of a value")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def text(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")


def parse(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata (arrays left out) and float32 vectors of a little-endian GGUF of version 2 or 3."""
    cursor = _Cursor(data)
    if cursor.take(4) != b"GGUF":
        raise InputError("it does not begin with GGUF")
    version, n_tensors, n_values = cursor.number("I"), cursor.number("Q"), cursor.number("Q")
    if version not in (2, 3):
        raise InputError(f"it is of GGUF version {version}; 2 and 3, little-endian, can be read")
    metadata: dict[str, Any] = {}
    for _ in range(n_values):  # each takes bytes, so that a false count ends with the file
        key = cursor.text()
        metadata[key] = _value(cursor, cursor.number("I"))
    infos = [_info(cursor) for _ in range(n_tensors)]
    if sum(4 * width for _, width, _ in infos) > len(data):  # or many names for the same bytes would fill the memory
        raise InputError("its tensors are larger than the file")
    step = metadata.get("general.alignment", 32)
    if not isinstance(step, int) or not 1 <= step <= 2**16:
        raise InputError(f"its alignment is {step!r}")
    start = -(-cursor.at // step) * step
    tensors: dict[str, Tensor] = {}
    for name, width, offset in infos:
        if name in tensors:
            raise InputError(f"it has two tensors {name[:60]!r}")
        cursor.at = min(start + offset, len(data))
        tensors[name] = torch.frombuffer(bytearray(cursor.take(4 * width)), dtype=torch.float32)
    return metadata, tensors


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == _STRING:
        return cursor.text()
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind != _ARRAY:
        raise InputError(f"it has a value of the unknown type {kind}")
    inner, count = cursor.number("I"), cursor.number("Q")
    if inner in _SCALARS:
        cursor.take(count * struct.calcsize("<" + _SCALARS[inner]))
    elif inner == _STRING:
        for _ in range(count):
            cursor.text()
    else:
        raise InputError(f"it has an array of the unknown type {inner}")
    return None


def _info(cursor: _Cursor) -> tuple[str, int, int]:
    """Name, width and offset of a tensor."""
    name, dims = cursor.text(), cursor.number("I")
    if dims != 1:
        raise InputError(f"its tensor {name[:60]!r} has {dims} dimensions, not 1")
    width, kind, offset = cursor.number("Q"), cursor.number("I"), cursor.number("Q")
    if kind != _FLOAT32:
        raise InputError(f"its tensor {name[:60]!r} is not float32 (GGML type {kind}), which llama.cpp refuses too")
    if width == 0:
        raise InputError(f"its tensor {name[:60]!r} is empty")
    return name, width, offset
