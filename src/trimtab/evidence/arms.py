"""Controls that need nothing but the recipe and its SAE: another recipe, with everything else kept the same.

A control is a function from (recipe, sae, generator) to another recipe. Those that draw at random are called several
times, so that no single unlucky direction decides. `trimtab.evidence.plan` has the list of all arms.
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
        edits.extend(with_features(edit, sae, _matched(edit.spec.features, sae, taken, generator)).edits)
    return Recipe(tuple(edits), recipe.about)


def with_features(edit: Edit, sae: SAE, others: Sequence[int]) -> Recipe:
    """The edit made of other features of the SAE, with its operation, strengths, unit and scope."""
    pairs = dict(zip(others, edit.spec.strengths, strict=True))
    if edit.spec.op == "ablate":
        return Recipe.ablate(sae, pairs, edit.spec.scope)
    if edit.spec.op == "scale":
        return Recipe.scale(sae, pairs, edit.spec.scope)
    make = {"add": Recipe.add, "clamp": Recipe.clamp, "min": Recipe.min, "max": Recipe.max}[edit.spec.op]
    return make(sae, pairs, edit.spec.unit, edit.spec.scope)


CONTROLS: Mapping[str, Control] = MappingProxyType(
    {"random": random_direction, "sign-flipped": sign_flipped, "matched-feature": matched_feature}
)


def control_recipe(name: str, recipe: Recipe, sae: SAE, seed: int, prompt: int, draw: int) -> Recipe:
    """One draw of a control for a prompt, always the same for the same arguments."""
    return CONTROLS[name](recipe, sae, generator_of(name, seed, prompt, draw))


def generator_of(name: str, seed: int, prompt: int, draw: int) -> torch.Generator:
    """The random numbers of one draw of an arm."""
    digest = hashlib.sha256(f"{name} {seed} {prompt} {draw}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


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
