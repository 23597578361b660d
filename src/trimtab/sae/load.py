"""Open an SAE by name or path, and check that it belongs to a model."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol

import torch

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.sae.formats import read_sae
from trimtab.sae.sae import SAE
from trimtab.sae.saelens import Source
from trimtab.sae.shipped import SHIPPED, list_saes
from trimtab.spec import Site

__all__ = ["check_fits", "list_saes", "open_sae"]

IN_PACKAGE = ("gemma-3-270m", "gemma-3-270m-block-9")


class ModelFacts(Protocol):
    """What `check_fits` needs to know of a model."""

    @property
    def name(self) -> str:
        """As it was opened: a name, a hub id or a local folder."""
        ...

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        ...

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...


def open_sae(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device | None = None,
    release: str | None = None,
    site: int | str | Site | None = None,
    model_name: str | None = None,
    norm_factor: float | None = None,
) -> SAE:
    """Open an SAE: one in the package, a folder or file on disk, or a name in SAELens' registry.

    `"gemma-3-270m"` and `"gemma-3-270m-block-9"` are in the package. `"gpt2-small-res-jb/blocks.8.hook_resid_pre"` is
    `release/id` in the registry (or pass `release=` apart); a release that is not in the registry may be a Hugging
    Face repository, `user/repo/folder`. On disk: SAELens (v6 and before), Gemma Scope 1 and 2, sparsify, or a .pt file
    of two linear layers (see `formats.py`). `site`, `model_name` and `norm_factor` (that of expected_average_only_in)
    stand in for what a file does not say. `device`: where the weights go, by default the CPU.

    Raises `InputError` (unknown name, with close matches), `FileError` (missing or damaged), `UnsupportedError`.
    """
    name = os.fspath(name_or_path)
    at = None if site is None else Site.of(site)
    source = Source(name=name, site=at, model_name=model_name, norm_factor=norm_factor)
    sae = _open(name, release, source)
    try:
        return sae if device is None else sae.to(device)
    except (RuntimeError, AssertionError) as error:  # torch's ways to say no such device, or no memory there
        detail = str(error).split("\n")[0]
        raise InputError(f"The SAE cannot be put on device {str(device)!r}: {detail}") from None


def _open(name: str, release: str | None, source: Source) -> SAE:
    if release is None and name in IN_PACKAGE:
        folder = SHIPPED / name
        if not (folder / "cfg.json").is_file():
            raise FileError(
                f"The SAE {name!r} should be in the package at {folder}, but it is not there: install trimtab anew."
            )
        return read_sae(folder, source)
    path = Path(name).expanduser()
    if release is None and (path.exists() or _looks_like_a_path(name)):
        return read_sae(path, source)
    from trimtab.sae.registry import open_registered

    return open_registered(name, release, source)


def _looks_like_a_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name.endswith((".pt", ".pth", ".npz", ".safetensors"))


def check_fits(sae: SAE, model: ModelFacts) -> None:
    """Raise `MismatchError`, naming both sides, unless `sae` was trained on this model.

    Names are compared without their organisation and punctuation ("google/gemma-3-270m" is "gemma-3-270m"). A model
    opened from a local folder is taken at its word when the folder's path contains the SAE's model. An SAE that does
    not say its model is checked by width and layer alone.
    """
    if sae.model_name and not _same_model(sae.model_name, model.name):
        raise MismatchError(
            f"The SAE {sae.name!r} was trained on {sae.model_name!r}, but the model is {model.name!r}. Open the SAE's "
            f"own model or an SAE of this one; if they are the same, say so: open_sae(..., model_name={model.name!r})."
        )
    if sae.d_in != model.d_model:
        raise MismatchError(
            f"The SAE {sae.name!r} reads width {sae.d_in}, but {model.name!r} has width {model.d_model}."
        )
    if sae.site.layer >= model.n_layers:
        raise MismatchError(
            f"The SAE {sae.name!r} reads {sae.site}, but {model.name!r} has {model.n_layers} layers, "
            f"0 to {model.n_layers - 1}."
        )


_ALIASES = {"gpt2small": "gpt2"}


def _same_model(recorded: str, used: str) -> bool:
    key = _model_key(recorded)
    if Path(used).expanduser().is_dir():
        return any(key in _model_key(part) for part in Path(used).expanduser().resolve().parts)
    return key == _model_key(used)


def _model_key(name: str) -> str:
    """One spelling for the names that different libraries give a model."""
    last = name.rstrip("/").split("/")[-1].lower()
    key = re.sub(r"[^a-z0-9]", "", re.sub(r"-pt$", "", last))
    return _ALIASES.get(key, key)
