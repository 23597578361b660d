"""Readers of SAE folders and files, one per layout; each ends in `saelens.convert`. Nothing is unpickled.

| layout | told by |
|---|---|
| SAELens, v6 or flat | `cfg.json` + `sae_weights.safetensors` |
| EleutherAI sparsify | `cfg.json` + `sae.safetensors` |
| Gemma Scope | `params.npz` |
| Gemma Scope 2 | `params.safetensors` |
| two linear layers | a `.pt` file with `encoder_linear.*` and `decoder_linear.*` |
"""

from __future__ import annotations

import json
import math
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import FileError, InputError, UnsupportedError
from trimtab.files import read_json
from trimtab.sae.sae import SAE
from trimtab.sae.saelens import Source, convert

WEIGHTS = "sae_weights.safetensors"
FEATURES = "features.safetensors"


def read_sae(path: Path, source: Source) -> SAE:
    """Open an SAE folder, or a file in one; raises `FileError` or `UnsupportedError` naming the path."""
    if not path.exists():
        raise FileError(f"No such SAE file or folder: {path}")
    if path.is_file() and path.suffix in (".pt", ".pth"):
        reader, where = two_linear_layers, path
    else:
        where = path.parent if path.is_file() else path
        readers = {
            WEIGHTS: saelens_folder,
            "sae.safetensors": sparsify_folder,
            "params.npz": gemma_scope_folder,
            "params.safetensors": gemma_scope_2_folder,
        }
        found = [name for name in readers if (where / name).is_file()]
        if not found:
            raise FileError(f"{path} is not an SAE: it holds none of {', '.join(readers)}.{_hint(where)}")
        reader = readers[path.name if path.name in found else found[0]]
    try:
        return reader(where, source)
    except InputError as error:
        raise FileError(f"{path} is not a usable SAE: {error}") from None
    except UnsupportedError as error:
        raise UnsupportedError(f"{path} cannot be used: {error}") from None


def saelens_folder(path: Path, source: Source) -> SAE:
    """SAELens' folder, with trimtab's own `features.safetensors` (max_act, density) and `card.json` if present."""
    cfg = _config(path / "cfg.json")
    scaler = path / "activation_scaler.json"
    if source.norm_factor is None and scaler.is_file():
        source = replace(source, norm_factor=_config(scaler).get("scaling_factor"))
    sae = convert(cfg, _safetensors(path / WEIGHTS), source)
    measured = _safetensors(path / FEATURES) if (path / FEATURES).is_file() else {}
    if not measured and (path / "sparsity.safetensors").is_file():
        measured = {"density": 10 ** _safetensors(path / "sparsity.safetensors")["sparsity"].float()}
    return replace(
        sae,
        max_act=measured["max_act"].float() if "max_act" in measured else None,
        density=measured["density"].float() if "density" in measured else None,
        card=_config(path / "card.json") if (path / "card.json").is_file() else {},
    )


def sparsify_folder(path: Path, source: Source) -> SAE:
    """EleutherAI sparsify: one folder per hookpoint, such as `layers.10`, which names a block's output.

    `W_dec` is stored [num_latents, d_in], and the decoder bias is taken off the input.
    """
    cfg = _config(path / "cfg.json")
    for flag in ("transcode", "skip_connection", "signed", "normalize_io", "matching_pursuit"):
        if cfg.get(flag):
            raise UnsupportedError(f"it is a sparsify coder with {flag}, which is not an autoencoder of the residual.")
    if cfg.get("activation", "topk") != "topk":
        raise UnsupportedError(f"its activation is {cfg['activation']!r}; trimtab knows sparsify's topk.")
    tensors = _safetensors(path / "sae.safetensors")
    _need(tensors, "encoder.weight", "encoder.bias", "W_dec", "b_dec")
    run = path.parent / "config.json"
    about = {
        "architecture": "topk",
        "k": cfg.get("k"),
        "hook_name": path.resolve().name,
        "model_name": _config(run).get("model") if run.is_file() else None,
    }
    weights = {
        "W_enc": tensors["encoder.weight"].T,
        "b_enc": tensors["encoder.bias"],
        "W_dec": tensors["W_dec"],
        "b_dec": tensors["b_dec"],
    }
    return convert(about, weights, source)


def gemma_scope_folder(path: Path, source: Source) -> SAE:
    """Gemma Scope (Lieberum et al., 2408.05147): `params.npz`, JumpReLU, no bias taken off the input."""
    import numpy as np

    file = path / "params.npz"
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            tensors = {_upper(name): torch.from_numpy(arrays[name]) for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(file, error) from None
    return convert(_scope_config(path, {}), tensors, source)


def gemma_scope_2_folder(path: Path, source: Source) -> SAE:
    """Gemma Scope 2: `params.safetensors` with lower-case names; without a `config.json` the folder's name tells."""
    cfg = _config(path / "config.json") if (path / "config.json").is_file() else {}
    if cfg.get("architecture", "jump_relu") not in ("jump_relu", "jumprelu"):
        raise UnsupportedError(f"its architecture is {cfg['architecture']!r}; Gemma Scope 2 SAEs are jump_relu.")
    tensors = {_upper(name): tensor for name, tensor in _safetensors(path / "params.safetensors").items()}
    return convert(_scope_config(path, cfg), tensors, source)


def two_linear_layers(path: Path, source: Source) -> SAE:
    """A state dict of two linear layers, `encoder_linear` (then ReLU) and `decoder_linear`.

    Trained on (a - mean) / std * sqrt(d) with mean and std over the whole tensor of one sequence, which is the
    "sequence" normalisation here. Opened folded, so that an activation is the strength f_i * ||d_i|| and decoder
    rows have length 1. The file does not say what it reads: `site` is needed.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise FileError(
            f"{path} holds more than tensors; trimtab does not unpickle it. Save its state_dict()."
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError("the file does not hold a state dict of tensors.")
    _need(state, *(f"{part}_linear.{kind}" for part in ("encoder", "decoder") for kind in ("weight", "bias")))
    if source.site is None:
        raise InputError(
            "the file does not say which layer it reads; pass site=, for example site=1 for the output of block 1."
        )
    weights = {
        "W_enc": state["encoder_linear.weight"].T,
        "b_enc": state["encoder_linear.bias"],
        "W_dec": state["decoder_linear.weight"].T,
        "b_dec": state["decoder_linear.bias"],
    }
    sae = convert({"normalize_activations": "sequence", "apply_b_dec_to_input": False}, weights, source)
    return sae.folded()


def _scope_config(path: Path, cfg: dict[str, Any]) -> dict[str, Any]:
    """SAELens' configuration for a Gemma Scope folder, from its `config.json` and from the path it lies in."""
    text = path.resolve().as_posix()
    if re.search(
        r"gemma-scope-[^/]*-(mlp|att|transcoders)|/(mlp_out|attn_out|transcoder|clt|crosscoder)|/embedding", text
    ):
        raise UnsupportedError("it is a Gemma Scope SAE of another place than the residual stream between blocks.")
    layer = re.search(r".*layer_(\d+)", text)
    hook = cfg.get("hf_hook_point_in") or (f"blocks.{layer.group(1)}.hook_resid_post" if layer else None)
    repo = re.search(r"gemma-scope-(2-)?(\d+[bm])-(pt|it)", text)
    model = str(cfg.get("model_name", "")).replace("-v3", "-3") or None
    if model is None and repo:
        model = f"gemma-{3 if repo.group(1) else 2}-{repo.group(2)}" + ("-it" if repo.group(3) == "it" else "")
    return {
        "architecture": "jumprelu",
        "apply_b_dec_to_input": False,
        "hook_name": hook,
        "model_name": model,
    }


def _upper(name: str) -> str:
    return "W_" + name[2:] if name.startswith("w_") else name


def _config(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} should hold a JSON object, not a {type(value).__name__}.")
    return value


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, json.JSONDecodeError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> FileError:
    detail = str(error).split("\n")[0] or type(error).__name__
    size = math.ceil(path.stat().st_size / 1024) if path.exists() else 0
    return FileError(f"{path} ({size} kB) is damaged or incomplete; copy or download it again ({detail}).")


def _need(tensors: dict[str, Tensor], *names: str) -> None:
    missing = [name for name in names if name not in tensors]
    if missing:
        raise InputError(f"it lacks {', '.join(missing)}; it holds {', '.join(sorted(tensors)) or 'nothing'}.")


def _hint(folder: Path) -> str:
    """Folders just below that do look like SAEs, for someone who named their parent."""
    if not folder.is_dir():
        return ""
    names = (WEIGHTS, "sae.safetensors", "params.npz", "params.safetensors")
    below = sorted({p.parent.name for name in names for p in folder.glob(f"*/{name}")})
    return f" Did you mean a folder in it: {', '.join(below[:5])}?" if below else ""
