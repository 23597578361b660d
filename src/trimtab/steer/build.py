"""Building one edit from what a person gives: checks, units, and copies of the tensors it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.spec import LATENT_OPS, Op, Scope, Site, Unit, finite
from trimtab.steer.spec import VALID_UNITS, EditSpec, SaeRef

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE, Latents


@dataclass(frozen=True, eq=False)
class Edit:
    """One operation at one site.

    `tensors`, float32 on the CPU, are copies that nothing else holds (never write to them): `vector` [d] for `vector`
    and `project`; for the others `rows` [n, d] (decoder rows) and, where it is needed, `max_act` [n].
    `latents` evaluates the features, where the operation has to read them or to undo the SAE's normalisation.
    """

    spec: EditSpec
    tensors: Mapping[str, Tensor]
    latents: Latents | None = None

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the spec and every tensor, so over all that decides what the edit does."""
        return content_digest(self.spec, self.tensors)


def content_digest(spec: EditSpec, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a spec and its tensors (name, shape and bytes)."""
    digest = hashlib.sha256(json.dumps(spec.model_dump(mode="json"), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def owned(tensor: Tensor) -> Tensor:
    """A float32 CPU copy that shares no memory with the original."""
    return tensor.detach().to("cpu", torch.float32, copy=True).contiguous()


def feature_edit(op: Op, sae: SAE, strengths: Mapping[int, float], unit: Unit, scope: Scope | None) -> Edit:
    """An edit of some features of an SAE; see the constructors of `Recipe` for what is refused."""
    if not isinstance(strengths, Mapping) or not strengths:
        raise InputError(f"Recipe.{op} needs at least one feature, such as {{8123: 1.5}}, not {strengths!r}.")
    if unit not in VALID_UNITS[op]:
        raise InputError(f"Recipe.{op} takes no unit {unit!r}. Valid: {', '.join(map(repr, VALID_UNITS[op]))}.")
    indices = sae.features(strengths)
    values = tuple(finite(value, f"The strength of feature {index}") for index, value in strengths.items())
    tensors = {"rows": owned(sae.rows(indices))}
    if op == "add" and unit in ("raw", "norm"):
        _refuse_where(tensors["rows"].norm(dim=1) == 0, indices, sae, "has a decoder row of zeros, so no direction")
    if unit == "max_act":
        if sae.max_act is None:
            raise InputError(f"{sae.name} records no maximum activations, which unit 'max_act' needs; use unit='raw'.")
        tensors["max_act"] = owned(sae.max_act[list(indices)])
        _refuse_where(tensors["max_act"] <= 0, indices, sae, "never fired (maximum activation 0); use unit='raw'")
    spec = EditSpec(
        op=op, site=sae.site, scope=scope or Scope(), unit=unit, features=indices,
        strengths=values, sae=sae_ref(sae),
    )  # fmt: skip
    reads = op in LATENT_OPS or (unit == "max_act" and sae.normalisation != "none")
    if reads and not sae.positionwise:
        raise UnsupportedError(
            f"{sae.name} normalises over whole sequences, so its activations are not known while a text is being "
            "written; use Recipe.add with unit 'raw' or 'norm'."
        )
    return Edit(spec, MappingProxyType(tensors), sae.latents(indices) if reads else None)


def vector_edit(
    op: Op, vector: Tensor, site: Site | int | str, strength: float, unit: Unit, scope: Scope | None
) -> Edit:
    """An edit by a plain vector [d]; see `Recipe.vector` and `Recipe.project`."""
    if unit not in VALID_UNITS[op]:
        raise InputError(f"Recipe.{op} takes no unit {unit!r}. Valid: {', '.join(map(repr, VALID_UNITS[op]))}.")
    try:
        own = owned(torch.as_tensor(vector))
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"Recipe.{op} needs a vector of numbers, not {type(vector).__name__}.") from None
    if own.dim() != 1 or own.numel() == 0:
        raise InputError(f"Recipe.{op} needs a vector of shape [d], not {list(own.shape)}.")
    if not torch.isfinite(own).all():
        raise InputError(f"The vector for Recipe.{op} has a value that is not finite (NaN or infinity).")
    if not own.any():
        raise InputError(f"The vector for Recipe.{op} is zero everywhere, so it has no direction.")
    number = finite(strength, f"The strength of Recipe.{op}")
    spec = EditSpec(op=op, site=Site.of(site), scope=scope or Scope(), unit=unit, strengths=(number,))
    return Edit(spec, MappingProxyType({"vector": own}))


def sae_ref(sae: SAE) -> SaeRef:
    """The reference by which a recipe remembers an SAE."""
    return SaeRef(
        name=sae.name, fingerprint=sae.fingerprint, architecture=sae.architecture, model_name=sae.model_name,
        d_in=sae.d_in, d_sae=sae.d_sae,
    )  # fmt: skip


def _refuse_where(wrong: Tensor, indices: tuple[int, ...], sae: SAE, why: str) -> None:
    bad = [index for index, is_wrong in zip(indices, wrong.tolist(), strict=True) if is_wrong]
    if bad:
        raise InputError(f"Feature {', '.join(map(str, bad))} of {sae.name} {why}.")
