"""The formats by name, and the two functions that people call: `export` and `read`.

notes = export(recipe, "sea.gguf", "gguf")        # what is lost, in sentences
recipe, notes = read("their.gguf", "gguf")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from trimtab.errors import FileError, InputError, UnsupportedError
from trimtab.steer.exchange import gguf_vectors, lm_eval, neuronpedia, plain_tensors, steering_vectors, vllm_lens
from trimtab.steer.exchange.pushes import Notes
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

Write = Callable[[Recipe, Path, str | None], Notes]
Read = Callable[[Path, "SAE | None"], tuple[Recipe, Notes]]
_LONGEST = 400  # characters of a sentence, whatever a file holds


@dataclass(frozen=True)
class Format:
    """One format. `write(recipe, path, name)` and `read(path, sae)` say in notes what was lost or is not known."""

    about: str
    suffix: str
    write: Write
    read: Read


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "gguf": Format(
            "control vector of llama.cpp, repeng, EasySteer", ".gguf", gguf_vectors.write, gguf_vectors.read
        ),
        "tensors": Format(
            "safetensors, and JSON that says what they do", ".safetensors", plain_tensors.write, plain_tensors.read
        ),
        "steering-vectors": Format(
            "layers of a SteeringVector", ".safetensors", steering_vectors.write, steering_vectors.read
        ),
        "neuronpedia-vector": Format(
            "body of POST /api/vector/new", ".json", neuronpedia.write_vector, neuronpedia.read_vector
        ),
        "neuronpedia-steer": Format(
            "body of POST /api/steer", ".json", neuronpedia.write_steer, neuronpedia.read_steer
        ),
        "lm-eval": Format("CSV of lm-evaluation-harness' steered model", ".csv", lm_eval.write, lm_eval.read),
        "vllm-lens": Format("wire JSON of vllm-lens", ".json", vllm_lens.write, vllm_lens.read),
    }
)


def export(recipe: Recipe, path: str | PathLike[str], format: str, name: str | None = None) -> Notes:
    """Write a recipe in another project's format and say what is lost; `name` is what they call the model or SAE.

    Raises `UnsupportedError` when the format cannot carry the recipe, and then writes nothing.
    """
    return _format(format).write(recipe, Path(path), name)


def read(path: str | PathLike[str], format: str | None = None, sae: SAE | None = None) -> tuple[Recipe, Notes]:
    """A recipe of another project's file, and what is not known of it.

    `format` None: by the file's suffix, where only one format has it. `sae`: for formats that name features and hold
    no vectors. Raises `FileError` for whatever is wrong with the file.
    """
    path = Path(path)
    chosen = format or _guess(path)
    reader = _format(chosen).read
    try:
        return reader(path, sae)
    except (InputError, UnsupportedError) as error:
        said = " ".join(str(error).split())
        said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
        raise FileError(f"{path} cannot be read as {chosen}: {said.rstrip('.')}.") from None


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"Unknown format {name!r}. Valid: {', '.join(FORMATS)}.")
    return FORMATS[name]


def _guess(path: Path) -> str:
    having = [name for name, one in FORMATS.items() if one.suffix == path.suffix]
    if len(having) == 1:
        return having[0]
    named = having or list(FORMATS)
    raise InputError(f"Which format {path.name} has is not clear from its name; say it: {', '.join(named)}.")
