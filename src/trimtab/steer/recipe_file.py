"""Recipe files: one safetensors file, with a JSON header in its metadata and every tensor the recipe needs.

Metadata has one key, `trimtab_recipe`, with the JSON of `Header`. Tensors are float32 and named `EDIT.NAME`, EDIT
counted from 0: `0.vector`, or `1.rows`, `1.max_act` and, for an edit that reads activations, the SAE's columns for
its features under `1.sae.NAME`. So a file works without the SAE it was made with, except for operations on latents of
a TopK SAE, where every feature decides whether one of them is on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save as to_bytes
from torch import Tensor

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.files import write_file
from trimtab.sae.norm import Normalisation
from trimtab.sae.sae import SAE, Latents
from trimtab.spec import LATENT_OPS, Spec
from trimtab.steer.build import Edit, owned
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import About, EditSpec
from trimtab.steer.tensor_file import HEADER_LIMIT, read_tensors

KEY = "trimtab_recipe"
COLUMNS = ("W_enc", "b_enc", "b_dec", "threshold", "gain", "b_mag")


class Reader(Spec):
    """How the stored columns of an SAE are used; `stored` is false where they would not be enough (TopK)."""

    stored: bool
    normalisation: Normalisation = "none"
    apply_b_dec_to_input: bool = True


class StoredEdit(EditSpec):
    """An edit in a file: its spec, and how to read activations if it does."""

    reader: Reader | None = None


class Header(Spec):
    """The JSON part of a recipe file. `content` is a SHA-256 over the tensors, `digest` is the recipe's own."""

    format: Literal[1] = 1
    digest: str
    content: str
    edits: Annotated[tuple[StoredEdit, ...], Field(min_length=1)]
    about: About = About()


def save(recipe: Recipe, path: str | PathLike[str]) -> None:
    """Write `recipe`; see `Recipe.save`. Raises what `as_bytes` raises."""
    content = as_bytes(recipe)
    with write_file(path) as part:
        part.write_bytes(content)


def as_bytes(recipe: Recipe) -> bytes:
    """What the file of a recipe holds. Raises `InputError` for one without edits or with NaN in its notes."""
    if not recipe.edits:
        raise InputError("This recipe has no edits, so there is nothing to save.")
    tensors: dict[str, Tensor] = {}
    stored = []
    for number, edit in enumerate(recipe.edits):
        own, reader = dict(edit.tensors), None
        if edit.latents is not None:
            sae = edit.latents.sae
            reader = Reader(
                stored=sae.architecture != "topk",
                normalisation=sae.normalisation,
                apply_b_dec_to_input=sae.apply_b_dec_to_input,
            )
            if reader.stored:
                columns = {name: getattr(sae, name) for name in COLUMNS}
                own |= {f"sae.{name}": tensor for name, tensor in columns.items() if tensor is not None}
        # Copies, because safetensors refuses tensors that share memory, as the biases of two edits may.
        tensors |= {f"{number}.{name}": owned(tensor) for name, tensor in own.items()}
        stored.append(StoredEdit(**dict(edit.spec), reader=reader))
    header = Header(digest=recipe.digest, content=_content(tensors), edits=tuple(stored), about=recipe.about)
    try:
        text = json.dumps(header.model_dump(mode="json"), allow_nan=False, ensure_ascii=False)
    except ValueError:
        raise InputError(
            "The recipe's notes (settings, cluster or evidence) hold a number that is not finite."
        ) from None
    if len(text.encode()) > HEADER_LIMIT // 2:
        raise InputError(
            f"The recipe's notes take more than {HEADER_LIMIT // 2**21} MiB of JSON; keep them in a file of their own."
        )
    return bytes(to_bytes(tensors, {KEY: text}))


def load(path: str | PathLike[str], sae: SAE | None = None) -> Recipe:
    """Read a recipe; see `Recipe.load`."""
    header, tensors = _read(Path(path))
    if _content(tensors) != header.content:
        raise FileError(f"{path} is damaged: its tensors are not those that were written.")
    edits = []
    for number, stored in enumerate(header.edits):
        mine = {name.partition(".")[2]: t for name, t in tensors.items() if name.partition(".")[0] == str(number)}
        try:
            edits.append(_edit(stored, mine, sae))
        except InputError as error:
            raise FileError(f"{path} is not a valid recipe, edit {number}: {error}") from None
    known = {f"{n}.{name}" for n, edit in enumerate(header.edits) for name in _names(edit)}
    if unknown := sorted(set(tensors) - known):
        raise FileError(f"{path} is not a valid recipe: unknown tensors {', '.join(unknown[:5])}.")
    try:
        recipe = Recipe(tuple(edits), header.about)
    except InputError as error:
        raise FileError(f"{path} is not a valid recipe: {error}") from None
    if recipe.digest != header.digest:
        raise FileError(f"{path} is damaged: its edits are not those that were written (digest {recipe.digest[:12]}).")
    return recipe


def _read(path: Path) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors, checked for form, types and finite values."""
    metadata, tensors = read_tensors(path, "recipe")
    if KEY not in metadata:
        raise FileError(f"{path} is a safetensors file but not a recipe: its metadata has no {KEY!r}.")
    try:
        header = Header.parse(_strict_json(metadata[KEY]))
    except (InputError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is not a valid recipe: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise FileError(f"{path} is not a valid recipe: {name} has dtype {tensor.dtype}, not torch.float32.")
        bad = tensor.isnan() if name.endswith("sae.threshold") else ~tensor.isfinite()
        if bool(bad.any()):
            raise FileError(f"{path} is not a valid recipe: {name} has values that are NaN or infinite.")
    return header, tensors


def _strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"its header holds {constant}, which is not a number")

    return json.loads(text, parse_constant=refuse)


def _names(stored: StoredEdit) -> set[str]:
    """Names of the tensors that an edit may have."""
    if stored.sae is None:
        return {"vector"}
    names = {"rows", "max_act"} if stored.unit == "max_act" else {"rows"}
    return names | ({f"sae.{name}" for name in COLUMNS} if stored.reader and stored.reader.stored else set())


def _edit(stored: StoredEdit, tensors: Mapping[str, Tensor], sae: SAE | None) -> Edit:
    spec = EditSpec(**{name: getattr(stored, name) for name in EditSpec.model_fields})
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith("sae.")}
    if spec.sae is None:
        if set(own) != {"vector"} or own["vector"].dim() != 1 or not bool(own["vector"].any()):
            raise InputError(f"{spec.op} needs a tensor 'vector' of shape [d] that is not zero.")
        return Edit(spec, MappingProxyType(own))
    shapes: dict[str, tuple[int, ...]] = {"rows": (len(spec.features), spec.sae.d_in)}
    if spec.unit == "max_act":
        shapes["max_act"] = (len(spec.features),)
    for name, shape in shapes.items():
        if name not in own or tuple(own[name].shape) != shape:
            given = list(own[name].shape) if name in own else "missing"
            raise InputError(f"the tensor {name!r} must have shape {list(shape)}; it is {given}.")
    if sae is not None:
        _same_sae(spec, own, sae)
    return Edit(spec, MappingProxyType(own), _latents(spec, stored.reader, tensors, sae))


def _latents(spec: EditSpec, reader: Reader | None, tensors: Mapping[str, Tensor], sae: SAE | None) -> Latents | None:
    assert spec.sae is not None
    if reader is None:
        if spec.op in LATENT_OPS:
            raise InputError(f"{spec.op} reads activations, but the file does not say how.")
        return None
    if sae is not None:
        return sae.latents(spec.features)
    if not reader.stored:
        raise MismatchError(
            f"This recipe edits latents of the TopK SAE {spec.sae.name}, which depend on all its features: "
            "load it with that SAE, Recipe.load(path, sae=open_sae(...))."
        )
    columns: dict[str, Any] = {name: tensors.get(f"sae.{name}") for name in COLUMNS}
    if missing := [name for name in ("W_enc", "b_enc", "b_dec") if columns[name] is None]:
        raise InputError(f"the tensors of the SAE lack {', '.join(missing)}.")
    part = SAE(
        name=spec.sae.name, architecture=spec.sae.architecture, site=spec.site, model_name=spec.sae.model_name,
        W_dec=tensors["rows"], normalisation=reader.normalisation, apply_b_dec_to_input=reader.apply_b_dec_to_input,
        **columns,
    )  # fmt: skip
    return Latents(spec.features, tensors["rows"], part)


def _same_sae(spec: EditSpec, own: Mapping[str, Tensor], sae: SAE) -> None:
    assert spec.sae is not None
    if sae.fingerprint != spec.sae.fingerprint:
        raise MismatchError(
            f"This recipe was made with the SAE {spec.sae.name} ({spec.sae.fingerprint[:12]}), not with {sae.name} "
            f"({sae.fingerprint[:12]})."
        )
    if not torch.equal(own["rows"], sae.rows(spec.features).cpu()):
        raise MismatchError(f"The decoder rows in this recipe are not those of the SAE {sae.name}.")


def _content(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
