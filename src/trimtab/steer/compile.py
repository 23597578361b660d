"""From recipes to compiled edits: one change per (site, scope) for all rows of a batch, each row with its own edit.

What a recipe adds becomes one vector per row. What it does to latents becomes one law per row and feature over the
union of the features that any row names, so that one encoder product serves the whole batch and never costs more than
encoding all of the SAE. A row that does not use a feature has the law that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from trimtab.errors import MismatchError
from trimtab.lm.residual import SiteEdit
from trimtab.lm.sites import check_site
from trimtab.sae.load import check_fits
from trimtab.sae.sae import Latents
from trimtab.spec import LATENT_OPS, Scope, Site
from trimtab.steer.edits import KEEP, added_change, dual, law, obey, projected_change

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.build import Edit
    from trimtab.steer.recipe import Recipe

Place = tuple[Site, Scope]
Delta = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LatentPart:
    """What one recipe does to some latents of one SAE: `laws` [4, n], and `pushes` [n] added to the activations."""

    sae: str
    latents: Latents
    laws: Tensor
    pushes: Tensor


@dataclass(frozen=True, eq=False)
class Part:
    """What one recipe does at one place, on one device. Everything is computed once and shared by its rows."""

    raw: Tensor | None  # [d]
    relative: Tensor | None  # [d]
    latents: tuple[LatentPart, ...]
    directions: Tensor  # [k, d], unit length; k is 0 when nothing is projected
    duals: Tensor  # [k, d]
    targets: Tensor  # [4, k], laws


def compile_all(recipe: Recipe, model: Model) -> list[SiteEdit]:
    """One recipe for every row of whatever batch comes."""
    _check(recipe, model)
    parts = lowered(recipe, str(model.device))
    return [SiteEdit(site, scope, None, _delta((part,))) for (site, scope), part in parts.items()]


def compile_rows(recipes: Sequence[Recipe | None], model: Model) -> list[SiteEdit]:
    """One recipe per row of the batch, None for a row that is left alone. Cheap to call whenever the rows change."""
    for one in {recipe for recipe in recipes if recipe is not None}:
        _check(one, model)
    members: dict[Place, list[tuple[int, Part]]] = {}
    for row, recipe in enumerate(recipes):
        if recipe is not None:
            for place, part in lowered(recipe, str(model.device)).items():
                members.setdefault(place, []).append((row, part))
    return [
        SiteEdit(site, scope, torch.tensor([row for row, _ in rows]), _delta(tuple(part for _, part in rows)))
        for (site, scope), rows in members.items()
    ]


@lru_cache(maxsize=128)
def lowered(recipe: Recipe, device: str) -> dict[Place, Part]:
    """A recipe's parts by place; equal recipes share them. Additive edits of strength 0 leave no trace."""
    places: dict[Place, list[Edit]] = {}
    for edit in recipe.edits:
        if edit.spec.op not in ("add", "vector") or any(edit.spec.strengths):
            places.setdefault((edit.spec.site, edit.spec.scope), []).append(edit)
    return {place: _part(edits, device) for place, edits in places.items()}


def _part(edits: list[Edit], device: str) -> Part:
    added: dict[bool, list[Tensor]] = {True: [], False: []}
    latents: list[LatentPart] = []
    directions: list[Tensor] = []
    targets: list[float] = []
    for edit in edits:
        if edit.latents is not None:
            latents.append(_latent_part(edit, device))
        elif edit.spec.op == "project":
            vector = edit.tensors["vector"]
            directions.append(vector / vector.norm())
            targets.extend(edit.spec.strengths)
        else:
            added[edit.spec.unit == "norm"].append(added_vector(edit))
    width = next(iter(edits[0].tensors.values())).shape[-1]
    lines = torch.stack(directions) if directions else torch.zeros(0, width)
    return Part(
        raw=torch.stack(added[False]).sum(0).to(device) if added[False] else None,
        relative=torch.stack(added[True]).sum(0).to(device) if added[True] else None,
        latents=tuple(latents),
        directions=lines.to(device),
        duals=dual(lines).to(device),
        targets=law("project", torch.tensor(targets)).to(device),
    )


def added_vector(edit: Edit) -> Tensor:
    """The vector [d] that an `add` or `vector` edit adds; for unit `norm`, as a share of the residual's norm."""
    spec, strengths = edit.spec, torch.tensor(edit.spec.strengths)
    if spec.op == "vector":
        vector = edit.tensors["vector"]
        return strengths * (vector / vector.norm() if spec.unit == "norm" else vector)
    rows = edit.tensors["rows"]
    if spec.unit == "max_act":
        return (strengths * edit.tensors["max_act"]) @ rows
    return strengths @ (rows / rows.norm(dim=1, keepdim=True))


def _latent_part(edit: Edit, device: str) -> LatentPart:
    assert edit.latents is not None
    assert edit.spec.sae is not None
    values = torch.tensor(edit.spec.strengths)
    if edit.spec.unit == "max_act":
        values = values * edit.tensors["max_act"]
    reads = edit.spec.op in LATENT_OPS
    latents = Latents(edit.latents.indices, edit.latents.rows.to(device), edit.latents.sae.to(device))
    laws = law(edit.spec.op, values) if reads else law("scale", torch.ones_like(values))
    return LatentPart(
        edit.spec.sae.fingerprint, latents, laws.to(device), (torch.zeros_like(values) if reads else values).to(device)
    )


def _delta(parts: tuple[Part, ...]) -> Delta:
    """The change of h [n, seq, d] for n rows with a part each, or for any number of rows that share a single part."""
    raw, relative = (_stacked([getattr(part, name) for part in parts]) for name in ("raw", "relative"))
    by_sae: dict[str, list[tuple[int, LatentPart]]] = {}
    for row, part in enumerate(parts):
        for one in part.latents:
            by_sae.setdefault(one.sae, []).append((row, one))
    latent = [_latent_delta(used, len(parts)) for used in by_sae.values()]
    projected = _projected_delta(parts)

    def delta(h: Tensor) -> Tensor:
        change = added_change(h, raw, relative)
        for one in (*latent, projected):
            if one is not None:
                change = change + one(h)
        return change

    return delta


def _stacked(vectors: list[Tensor | None]) -> Tensor | None:
    """Vectors [d], zeros where there is none, as [n, d]; None when there are none at all."""
    known = next((vector for vector in vectors if vector is not None), None)
    if known is None:
        return None
    return torch.stack([torch.zeros_like(known) if vector is None else vector for vector in vectors])


def _latent_delta(used: list[tuple[int, LatentPart]], n: int) -> Delta:
    """The change due to latents of one SAE, used by some of n rows."""
    latents = joined([part.latents for _, part in used])
    column = {index: place for place, index in enumerate(latents.indices)}
    device = latents.rows.device
    laws = torch.tensor(KEEP, device=device)[:, None, None].repeat(1, n, len(column))
    pushes = torch.zeros(n, len(column), device=device)
    for row, part in used:
        places = torch.tensor([column[index] for index in part.latents.indices], device=device)
        laws[:, row, places] = both(laws[:, row, places], part.laws)
        pushes[row, places] += part.pushes

    def delta(h: Tensor) -> Tensor:
        f = latents.encode(h)
        return latents.move(h, obey(f, laws) - f + pushes[:, None, :])

    return delta


def both(first: Tensor, second: Tensor) -> Tensor:
    """One law for two on the same feature. Recipes allow only two that agree: min with max, or anything with none.

    Where a floor lies above a ceiling, the ceiling holds.
    """
    gain, offset = first[0] * second[0], first[1] + second[1]
    return torch.stack([gain, offset, torch.maximum(first[2], second[2]), torch.minimum(first[3], second[3])])


def joined(parts: list[Latents]) -> Latents:
    """The union of some latents of one SAE, each feature once, in the order of first appearance."""
    first = parts[0]
    if all(part.indices == first.indices for part in parts):
        return first
    if first.sae.architecture == "topk":
        return first.sae.latents(dict.fromkeys(index for part in parts for index in part.indices))
    where: dict[int, int] = {}
    for place, index in enumerate(index for part in parts for index in part.indices):
        where.setdefault(index, place)
    chosen = torch.tensor(list(where.values()), device=first.rows.device)
    columns: dict[str, Any] = {}
    for name in (f.name for f in fields(first.sae)):
        if isinstance(getattr(first.sae, name), Tensor) and name not in ("b_dec", "max_act", "density"):
            axis = 1 if name == "W_enc" else 0
            columns[name] = torch.cat([getattr(part.sae, name) for part in parts], axis).index_select(axis, chosen)
    return Latents(tuple(where), columns["W_dec"], replace(first.sae, max_act=None, density=None, **columns))


def _projected_delta(parts: tuple[Part, ...]) -> Delta | None:
    """Rows may project different numbers of directions: shorter ones are filled up with zeros, which do nothing."""
    most = max(len(part.directions) for part in parts)
    if most == 0:
        return None
    width = parts[0].directions.shape[1]
    directions, duals = (parts[0].directions.new_zeros(len(parts), most, width) for _ in range(2))
    targets = parts[0].targets.new_tensor(KEEP)[:, None, None].repeat(1, len(parts), most)
    for row, part in enumerate(parts):
        k = len(part.directions)
        directions[row, :k], duals[row, :k], targets[:, row, :k] = part.directions, part.duals, part.targets
    return lambda h: projected_change(h, directions, duals, targets)


class SaeFacts(NamedTuple):
    """What `check_fits` asks of an SAE; a recipe from a file has no more than this."""

    name: str
    model_name: str | None
    d_in: int
    site: Site


def _check(recipe: Recipe, model: Model) -> None:
    """Refuse a model that the recipe was not made for, before anything is computed."""
    made_for = recipe.about.model_fingerprint
    if made_for is not None and made_for != model.fingerprint:
        raise MismatchError(
            f"This recipe was made for the model {recipe.about.model} ({made_for}), not for {model.name} "
            f"({model.fingerprint})."
        )
    for spec, tensors in ((edit.spec, edit.tensors) for edit in recipe.edits):
        if spec.sae is not None:
            facts = SaeFacts(spec.sae.name, spec.sae.model_name, spec.sae.d_in, spec.site)
            check_fits(cast("SAE", facts), model)
            continue
        check_site(spec.site, model.n_layers)
        if len(tensors["vector"]) != model.d_model:
            raise MismatchError(
                f"The vector of Recipe.{spec.op} has width {len(tensors['vector'])}, but the residual stream of "
                f"{model.name} has width {model.d_model}."
            )
