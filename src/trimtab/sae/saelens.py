"""From SAELens' configuration and tensors to our SAE: every other format is first put into this form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.sae.sae import SAE, Architecture, row_norms
from trimtab.spec import Site

_FROM_TRAINING = ("batchtopk", "matryoshka_batchtopk")  # used as jumprelu after training
_TENSORS: dict[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


@dataclass(frozen=True)
class Source:
    """What the person who opens the SAE knows about it, used where the file does not say."""

    name: str
    site: Site | None = None
    model_name: str | None = None
    norm_factor: float | None = None  # the mean-norm factor of expected_average_only_in


def convert(cfg: dict[str, Any], tensors: dict[str, Tensor], source: Source) -> SAE:
    """SAELens cfg.json (v6, or flat as before version 6) and its state dict -> SAE.

    Raises `UnsupportedError` for what cannot be used correctly, `InputError` for what is missing or malformed.
    """
    about = {**cfg, **(cfg.get("metadata") or {})}
    k = _topk(cfg)
    saved_as = "topk" if k is not None else str(cfg.get("architecture") or "standard")
    architecture, tensors = _inference_form(saved_as, _floats(tensors))
    normalisation = _normalisation(cfg)
    need = ("W_enc", "W_dec", "b_dec", *_TENSORS[architecture])
    missing = [name for name in need if name not in tensors]
    if missing:
        raise InputError(f"a {saved_as} SAE needs {', '.join(missing)}, but the weights hold {', '.join(tensors)}.")
    if normalisation == "expected_average_only_in":
        tensors = _fold_input_factor(tensors, source.norm_factor, cfg)
        normalisation = "none"
    if saved_as in ("topk", *_FROM_TRAINING) and cfg.get("rescale_acts_by_decoder_norm", saved_as != "topk"):
        tensors = _fold_decoder_norm(tensors)
    gated = architecture == "gated"
    return SAE(
        name=source.name,
        architecture=architecture,
        site=source.site or site_of(about),
        model_name=source.model_name or about.get("model_name"),
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_gate" if gated else "b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        threshold=tensors["threshold"] if architecture == "jumprelu" else None,
        k=k,
        gain=tensors["r_mag"].exp() if gated else None,
        b_mag=tensors["b_mag"] if gated else None,
        normalisation=normalisation,  # type: ignore[arg-type]  # checked by SAE
        apply_b_dec_to_input=bool(cfg.get("apply_b_dec_to_input", True)),
    )


def site_of(about: dict[str, Any]) -> Site:
    """The residual-stream site that the configuration names."""
    hook = about.get("hook_name") or about.get("hook_point") or about.get("hf_hook_name")
    if not hook:
        raise InputError(
            "it does not say which layer it reads; pass site=, for example site=9 for the output of block 9."
        )
    try:
        return Site.of(str(hook))
    except InputError:
        raise UnsupportedError(
            f"it reads {hook!r}; trimtab works on the residual stream between blocks (hook_resid_pre, hook_resid_post)."
        ) from None


def _topk(cfg: dict[str, Any]) -> int | None:
    """The k of a TopK SAE. Before version 6 TopK was written as an activation function of a "standard" SAE."""
    function = cfg.get("activation_fn_str") or cfg.get("activation_fn")
    if isinstance(function, str) and function not in ("relu", "topk"):
        raise UnsupportedError(f"its activation function is {function!r}; trimtab knows relu and topk.")
    if cfg.get("architecture") != "topk" and function != "topk":
        return None
    k = (cfg.get("activation_fn_kwargs") or {}).get("k", cfg.get("k"))
    if not isinstance(k, int):
        raise InputError(f"a TopK SAE needs a whole number k, not {k!r}.")
    return k


def _inference_form(saved_as: str, tensors: dict[str, Tensor]) -> tuple[Architecture, dict[str, Tensor]]:
    if saved_as in _FROM_TRAINING:
        if "threshold" not in tensors and "topk_threshold" in tensors and "b_enc" in tensors:
            cut = tensors["topk_threshold"].reshape(()).expand_as(tensors["b_enc"]).clone()
            tensors = {**tensors, "threshold": cut}
        return "jumprelu", tensors
    if saved_as in _TENSORS:
        return saved_as, tensors  # type: ignore[return-value]  # the keys of _TENSORS are the architectures
    raise UnsupportedError(
        f"its architecture is {saved_as!r}; trimtab opens {', '.join((*_TENSORS, *_FROM_TRAINING))}."
    )


def _floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    scaling = tensors.get("scaling_factor")
    if scaling is not None and not torch.allclose(scaling.float(), torch.ones_like(scaling.float())):
        raise UnsupportedError("its weights hold a finetuning scaling_factor, which trimtab does not apply.")
    found = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise InputError(
                f"{name} has dtype {tensor.dtype}; weights are floating point (float32, bfloat16, float16)."
            )
        found[name] = tensor.detach().float().contiguous()
    return found


def _normalisation(cfg: dict[str, Any]) -> str:
    kind = cfg.get("normalize_activations")
    if kind is None or isinstance(kind, bool):
        return "expected_average_only_in" if kind else "none"
    if kind == "covariance_whitening":
        raise UnsupportedError(
            "its input whitening is not folded into the weights; save it for inference with SAELens."
        )
    return str(kind)


def _fold_input_factor(tensors: dict[str, Tensor], factor: float | None, cfg: dict[str, Any]) -> dict[str, Tensor]:
    """The SAE was trained on factor * x; the same map on x itself (Anthropic's update of April 2024)."""
    factor = cfg.get("norm_scaling_factor") if factor is None else factor
    if factor is None:
        raise UnsupportedError(
            "it expects inputs scaled by a factor measured in training (expected_average_only_in), and that factor is "
            "not in its folder; without it every activation is wrong. Pass norm_factor= (sqrt(width) over the mean "
            "norm of the residual in training), or fold it with SAELens before saving."
        )
    factor = float(factor)
    if not 0 < factor < float("inf"):
        raise InputError(f"the norm factor must be a positive number, not {factor}.")
    shrunk = {name: tensors[name] / factor for name in ("W_dec", "b_dec")}
    return {**tensors, "W_enc": tensors["W_enc"] * factor, **shrunk}


def _fold_decoder_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """rescale_acts_by_decoder_norm: selection and activations are times ||d_i||, decoding divides by it again.

    Folding is exact here, for topk too: the rows that remain have length 1. The threshold is already in these units.
    """
    norms = row_norms(tensors["W_dec"])
    grown = {name: tensors[name] * norms for name in ("W_enc", "b_enc")}
    return {**tensors, **grown, "W_dec": tensors["W_dec"] / norms[:, None]}
