"""A sparse autoencoder as a frozen value with pure functions; nothing is remembered between two calls.

Activations f are non-negative. With x_in the input as `SAE.normalise` prepares it and pre = x_in @ W_enc + b_enc:

    standard   f = relu(pre)
    topk       f = relu(pre) where pre is among the k largest of its position, else 0  (Gao et al., 2406.04093)
    jumprelu   f = relu(pre) where pre > threshold, else 0                  (Rajamanoharan et al., 2407.14435)
    gated      f = relu(gain * (x_in @ W_enc) + b_mag) where pre > 0, else 0       (the same, 2404.16014)

BatchTopK and Matryoshka SAEs are jumprelu here, because that is how they are used after training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.sae.norm import Normalisation, Scale, normalise
from trimtab.spec import Site

Architecture = Literal["standard", "topk", "jumprelu", "gated"]


@dataclass(frozen=True, eq=False)
class SAE:
    """Weights and how to use them. All tensors are float32 and on one device; none is ever changed.

    Activations of residuals too large for memory at once are the caller's business: `encode` in chunks.
    Raises `InputError` when shapes disagree or a weight is NaN.
    """

    name: str
    architecture: Architecture
    site: Site
    model_name: str | None
    W_enc: Tensor  # [d_in, d_sae]
    b_enc: Tensor  # [d_sae]; the bias of the gate when gated
    W_dec: Tensor  # [d_sae, d_in]
    b_dec: Tensor  # [d_in]
    threshold: Tensor | None = None  # [d_sae], jumprelu
    k: int | None = None  # topk
    gain: Tensor | None = None  # [d_sae], gated: exp(r_mag)
    b_mag: Tensor | None = None  # [d_sae], gated
    normalisation: Normalisation = "none"
    apply_b_dec_to_input: bool = True
    max_act: Tensor | None = None  # [d_sae]: largest activation seen while measuring
    density: Tensor | None = None  # [d_sae]: share of tokens with a positive activation
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self)

    def __repr__(self) -> str:
        return f"SAE({self.name!r}, {self.architecture}, {self.d_sae} features of width {self.d_in}, {self.site})"

    @property
    def d_in(self) -> int:
        """Width of the residual stream that this SAE reads."""
        return self.W_dec.shape[1]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_dec.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.W_dec.device

    @property
    def positionwise(self) -> bool:
        """Whether an activation depends on nothing but the residual at its own position."""
        return self.normalisation != "sequence"

    def to(self, device: str | torch.device) -> SAE:
        """The same SAE with its tensors on `device`."""
        if torch.device(device) == self.device:
            return self
        return _with_tensors(self, lambda _, tensor: tensor.to(device))

    def normalise(self, x: Tensor) -> tuple[Tensor, Scale]:
        """Residual x [..., d_in] -> (what the encoder sees [..., d_in], the scale that `decode` needs to undo it)."""
        if x.shape[-1] != self.d_in:
            raise InputError(f"The residual has width {x.shape[-1]}; the SAE {self.name!r} reads width {self.d_in}.")
        x, scale = normalise(x.float(), self.normalisation)
        return (x - self.b_dec if self.apply_b_dec_to_input else x), scale

    def encode(self, x: Tensor) -> Tensor:
        """Residual x [..., d_in] of any float dtype -> activations [..., d_sae], float32."""
        x_in, _ = self.normalise(x)
        product = x_in @ self.W_enc
        pre = product + self.b_enc
        if self.architecture == "jumprelu":
            assert self.threshold is not None
            return pre.relu() * (pre > self.threshold)
        if self.architecture == "topk":
            assert self.k is not None
            values, places = pre.topk(self.k, dim=-1, sorted=False)
            return torch.zeros_like(pre).scatter_(-1, places, values.relu())
        if self.architecture == "gated":
            assert self.gain is not None
            assert self.b_mag is not None
            return (product * self.gain + self.b_mag).relu() * (pre > 0)
        return pre.relu()

    def decode(self, f: Tensor, scale: Scale | None = None) -> Tensor:
        """Activations f [..., d_sae] -> reconstructed residual [..., d_in], the decoder's bias included.

        `scale` is the second value of `normalise(x)`; an SAE that normalises each input by its own size cannot
        decode without it (`UnsupportedError`). To steer, use `rows`: decode(onehot) is a row *plus the bias*.
        """
        out = f.float() @ self.W_dec + self.b_dec
        if self.normalisation == "none":
            return out
        if scale is None:
            raise UnsupportedError(
                f"The SAE {self.name!r} normalises each input ({self.normalisation}), so activations alone do not say "
                "how large the residual was. Use reconstruct(x), or pass the scale that normalise(x) returned."
            )
        return out * scale.factor + scale.shift

    def reconstruct(self, x: Tensor) -> Tensor:
        """Residual x [..., d_in] -> what the SAE makes of it, [..., d_in]: decode(encode(x))."""
        return self.decode(self.encode(x), self.scale(x))

    def scale(self, x: Tensor) -> Scale:
        """How the SAE's units relate to residual units at x [..., d_in]: residual = factor * decoded + shift."""
        return self.normalise(x)[1]

    def features(self, indices: Iterable[int]) -> tuple[int, ...]:
        """`indices` as a tuple of valid feature indices, or `InputError`."""
        chosen = tuple(indices.tolist() if isinstance(indices, Tensor) else indices)
        for index in chosen:
            if isinstance(index, bool) or not hasattr(index, "__index__"):
                raise InputError(f"A feature is a whole number, not {index!r}.")
            if not 0 <= int(index) < self.d_sae:
                raise InputError(
                    f"Feature {index} is out of range: this SAE has {self.d_sae} features, 0 to {self.d_sae - 1}."
                )
        return tuple(int(index) for index in chosen)

    def rows(self, indices: Iterable[int]) -> Tensor:
        """Decoder rows [n, d_in]: one unit of activation moves the residual by exactly this; never with the bias.

        In residual units when `normalisation` is "none". Otherwise the move also has the factor `scale(x).factor`
        of the position, and `Latents.move` includes it; the direction is right in either case.
        """
        return self.W_dec[list(self.features(indices))]

    def latents(self, indices: Iterable[int]) -> Latents:
        """The chosen features alone: `encode` costs n columns instead of d_sae (topk needs them all, to be exact)."""
        chosen = self.features(indices)
        columns = list(chosen)
        if self.architecture == "topk":
            return Latents(chosen, self.W_dec[columns], self)

        def pick(name: str, tensor: Tensor) -> Tensor:
            return tensor if name == "b_dec" else tensor[..., columns] if name == "W_enc" else tensor[columns]

        part = _with_tensors(self, pick)
        return Latents(chosen, part.W_dec, part)

    def folded(self) -> SAE:
        """The same SAE with decoder rows of length 1: activations become f_i * ||d_i||, reconstructions stay.

        Biases, thresholds and `max_act` are scaled with the encoder. `UnsupportedError` for topk, where folding
        would change which k features are kept.
        """
        if self.architecture == "topk":
            raise UnsupportedError(
                f"The decoder norms of the TopK SAE {self.name!r} cannot be folded: other features would be selected."
            )
        norms = row_norms(self.W_dec)
        grown = ("W_enc", "b_enc", "threshold", "b_mag", "max_act")

        def scaled(name: str, tensor: Tensor) -> Tensor:
            return tensor * norms if name in grown else tensor / norms[:, None] if name == "W_dec" else tensor

        return _with_tensors(self, scaled)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides activations and rows: every weight and how they are used.

        Measurements (`max_act`, `density`, `card`) and the name are not part of it.
        """
        use = [self.architecture, str(self.site), self.k, self.normalisation, self.apply_b_dec_to_input]
        digest = hashlib.sha256(json.dumps(use).encode())
        for name, tensor in _tensors(self):
            if name not in ("max_act", "density"):
                digest.update(f"{name}{list(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Latents:
    """Some features of an SAE, evaluated without the others. Made by `SAE.latents`."""

    indices: tuple[int, ...]
    rows: Tensor  # [n, d_in], as `SAE.rows`
    sae: SAE  # only the chosen columns, except for topk

    def encode(self, h: Tensor) -> Tensor:
        """Residual h [..., d_in] -> activations [..., n], float32; the same numbers as the full `SAE.encode`."""
        f = self.sae.encode(h)
        return f[..., list(self.indices)] if self.sae.architecture == "topk" else f

    def move(self, h: Tensor, change: Tensor) -> Tensor:
        """What the residual h [..., d_in] gains when the activations change by `change` [..., n]: [..., d_in]."""
        return change.float() @ self.rows * self.sae.scale(h).factor


def _tensors(sae: SAE) -> list[tuple[str, Tensor]]:
    found = [(f.name, getattr(sae, f.name)) for f in fields(sae)]
    return [(name, value) for name, value in found if isinstance(value, Tensor)]


def _with_tensors(sae: SAE, change: Callable[[str, Tensor], Tensor]) -> SAE:
    """`sae` with each of its tensors replaced by what `change(its name, it)` returns."""
    changed: dict[str, Any] = {name: change(name, tensor) for name, tensor in _tensors(sae)}
    return replace(sae, **changed)


def row_norms(W_dec: Tensor) -> Tensor:
    """Row norms [d_sae]; a row of zeros counts as norm 1, since there is nothing to scale."""
    norms = W_dec.norm(dim=-1)
    return torch.where(norms > 0, norms, 1.0)


def _check(sae: SAE) -> None:
    if sae.architecture not in get_args(Architecture):
        raise InputError(f"Unknown architecture {sae.architecture!r}. Valid: {', '.join(get_args(Architecture))}.")
    if sae.normalisation not in get_args(Normalisation):
        raise InputError(f"Unknown normalisation {sae.normalisation!r}. Valid: {', '.join(get_args(Normalisation))}.")
    needs = {"jumprelu": ("threshold",), "topk": ("k",), "gated": ("gain", "b_mag")}.get(sae.architecture, ())
    for name in needs:
        if getattr(sae, name) is None:
            raise InputError(f"A {sae.architecture} SAE needs {name}.")
    if sae.W_dec.ndim != 2:
        raise InputError(f"W_dec has shape {list(sae.W_dec.shape)}; it must be [features, width].")
    d_sae, d_in = sae.W_dec.shape
    shapes = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    for name, tensor in _tensors(sae):
        expected = shapes.get(name, (d_sae,))
        if tuple(tensor.shape) != expected:
            raise InputError(
                f"{name} has shape {list(tensor.shape)}; with {d_sae} features of width {d_in} "
                f"it must be {list(expected)}."
            )
        if tensor.dtype != torch.float32:
            raise InputError(f"{name} has dtype {tensor.dtype}; it must be torch.float32.")
        # A threshold of +inf is meaningful: that feature never fires.
        bad = tensor.isnan() if name == "threshold" else ~tensor.isfinite()
        if bool(bad.any()):
            raise InputError(f"{name} has {int(bad.sum())} values that are NaN or infinite.")
    if sae.k is not None and not 1 <= sae.k <= d_sae:
        raise InputError(f"k is {sae.k}; with {d_sae} features it must be 1 to {d_sae}.")
