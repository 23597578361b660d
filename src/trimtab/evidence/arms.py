"""Arms of a verification: what else is tried beside the recipe, with everything else kept the same.

A control is a function from (recipe, sae, generator) to another recipe; it is called once per prompt and sample, so
that no single unlucky direction decides. Further controls are added to `CONTROLS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.sae.sae import SAE
from trimtab.steer.build import Edit
from trimtab.steer.recipe import Recipe

Control = Callable[[Recipe, SAE, torch.Generator], Recipe]

DENSITY_FACTOR = 2.0
"""A matched feature's density lies within this factor of the target's (if none does, the nearest are taken)."""


def random_direction(recipe: Recipe, sae: SAE, generator: torch.Generator) -> Recipe:
    """The same edits, read the same way, written along random directions of the same lengths.

    All directions at one site are turned together by one random rotation, so that every length and every angle between
    them is kept, and so is the size of their weighted sum. This is the norm-matched control of Turner et al. (2023).
    """
    turned: dict[int, Edit] = {}
    for site in recipe.sites:
        mine = [(i, edit) for i, edit in enumerate(recipe.edits) if edit.spec.site == site]
        stacked = torch.cat([_directions(edit) for _, edit in mine])
        rotated = _rotated(stacked, generator)
        used = 0
        for i, edit in mine:
            n = len(_directions(edit))
            turned[i] = _written_along(edit, rotated[used : used + n])
            used += n
    return replace(recipe, edits=tuple(turned[i] for i in range(len(recipe.edits))))


def sign_flipped(recipe: Recipe, sae: SAE, generator: torch.Generator) -> Recipe:
    """The recipe with all its strengths negated; `UnsupportedError` for operations that have no opposite."""
    try:
        return -recipe
    except InputError as error:
        raise UnsupportedError(f"The control 'sign-flipped' cannot be run: {error}") from None


def matched_feature(recipe: Recipe, sae: SAE, generator: torch.Generator) -> Recipe:
    """The recipe with each of its features replaced by another live one of like density, drawn at random.

    Strengths and units stay: in `max_act` units the other feature gets the same multiple of its own maximum.
    """
    if sae.density is None:
        raise UnsupportedError(f"The control 'matched-feature' needs the densities of features; {sae.name} has none.")
    taken = set(recipe.features_of(sae))
    edits: list[Edit] = []
    for edit in recipe.edits:
        if edit.spec.sae is None or edit.spec.sae.fingerprint != sae.fingerprint:
            raise UnsupportedError(
                "The control 'matched-feature' is for recipes whose edits are features of the SAE given."
            )
        others = _matched(edit.spec.features, sae, taken, generator)
        pairs = dict(zip(others, edit.spec.strengths, strict=True))
        if edit.spec.op == "ablate":
            made = Recipe.ablate(sae, pairs, edit.spec.scope)
        elif edit.spec.op == "scale":
            made = Recipe.scale(sae, pairs, edit.spec.scope)
        else:
            make = {"add": Recipe.add, "clamp": Recipe.clamp, "min": Recipe.min, "max": Recipe.max}[edit.spec.op]
            made = make(sae, pairs, edit.spec.unit, edit.spec.scope)
        edits.extend(made.edits)
    return Recipe(tuple(edits), recipe.about)


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {"random": random_direction, "sign-flipped": sign_flipped, "matched-feature": matched_feature}
)

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "unsteered": "unsteered",
        "recipe": "steered",
        "random": "random direction",
        "sign-flipped": "sign flipped",
        "matched-feature": "random feature of like density",
    }
)


def check_controls(names: Sequence[str]) -> tuple[str, ...]:
    """`names` as a tuple, or `InputError` that lists the valid ones."""
    for name in names:
        if name not in CONTROLS:
            raise InputError(f"Unknown control {name!r}. Valid: {', '.join(CONTROLS)}.")
    if len(set(names)) != len(names):
        raise InputError(f"Controls must be distinct, not {', '.join(names)}.")
    return tuple(names)


def control_recipe(name: str, recipe: Recipe, sae: SAE, seed: int, prompt: int, sample: int) -> Recipe:
    """The recipe of one row of a control arm, always the same for the same arguments."""
    digest = hashlib.sha256(f"{name} {seed} {prompt} {sample}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return CONTROLS[name](recipe, sae, generator)


def _directions(edit: Edit) -> Tensor:
    """The directions [n, d] along which an edit writes."""
    return edit.tensors["rows"] if "rows" in edit.tensors else edit.tensors["vector"][None, :]


def _rotated(rows: Tensor, generator: torch.Generator) -> Tensor:
    """`rows` [n, d] turned by a random rotation: a random frame with the same inner products."""
    triangle = torch.linalg.qr(rows.double().T).R
    noise = torch.randn(rows.shape[1], len(triangle), generator=generator, dtype=torch.float64)
    return (torch.linalg.qr(noise).Q @ triangle).T.float().contiguous()


def _written_along(edit: Edit, rows: Tensor) -> Edit:
    if "vector" in edit.tensors:
        return replace(edit, tensors=MappingProxyType({**edit.tensors, "vector": rows[0]}))
    tensors = MappingProxyType({**edit.tensors, "rows": rows})
    if edit.latents is None or edit.spec.sae is None:
        return replace(edit, tensors=tensors)
    # Rows of a batch that read one SAE share its decoder rows; another name keeps this edit's rows apart.
    name = hashlib.sha256(edit.spec.sae.fingerprint.encode() + rows.numpy().tobytes()).hexdigest()
    spec = edit.spec.model_copy(update={"sae": edit.spec.sae.model_copy(update={"fingerprint": name})})
    return replace(
        edit, spec=spec, tensors=tensors, latents=replace(edit.latents, rows=rows.to(edit.latents.rows.device))
    )


def _matched(features: Sequence[int], sae: SAE, taken: set[int], generator: torch.Generator) -> list[int]:
    assert sae.density is not None
    density = sae.density.double().cpu()
    live = density > 0
    if sae.max_act is not None:
        live &= sae.max_act.cpu() > 0
    out: list[int] = []
    for feature in features:
        free = live.clone()
        free[list(taken | set(out))] = False
        if not bool(free.any()):
            raise UnsupportedError(f"{sae.name} has no other live feature to compare with.")
        distance = (density.clamp(min=1e-12).log() - density[feature].clamp(min=1e-12).log()).abs()
        distance[~free] = torch.inf
        near = (distance <= torch.tensor(DENSITY_FACTOR).log()).nonzero()[:, 0]
        if not len(near):
            near = (distance == distance.min()).nonzero()[:, 0]
        out.append(int(near[torch.randint(len(near), (1,), generator=generator)]))
    return out
