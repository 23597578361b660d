"""What most formats can carry: one fixed vector for each block, added at every token.

`add` and `vector` in the units `raw` and `max_act` are exactly that. Everything else is refused, in one sentence that
says what the format lacks; the one thing that is converted with a loss is which tokens are edited: no such format can
leave the first token (BOS) alone, as recipes do unless their scope says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.spec import LATENT_OPS, Scope, Site
from trimtab.steer.build import Edit
from trimtab.steer.compile import added_vector
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import About, Setting

EVERY_TOKEN = Scope(bos=True)
Notes = tuple[str, ...]


def pushes(recipe: Recipe, format: str) -> tuple[dict[Site, Tensor], Notes]:
    """Site -> the vector [d] that the recipe adds there, and what is lost; refuses what is more than that."""
    found: dict[Site, list[Tensor]] = {}
    for edit in edits(recipe):
        found.setdefault(edit.spec.site, []).append(fixed(edit, format))
    _same_width(vector for vectors in found.values() for vector in vectors)
    summed = {site: torch.stack(found[site]).sum(0) for site in sorted(found, key=lambda site: site.layer)}
    for site, vector in summed.items():
        if not bool(vector.isfinite().all()):
            raise InputError(f"What the recipe adds at {site} is too large for float32, so it cannot be exported.")
    moving = {site: vector for site, vector in summed.items() if bool(vector.any())}
    if not moving:
        raise InputError("The recipe adds nothing anywhere (its strengths are 0), so there is nothing to export.")
    return moving, scope_notes(recipe, format)


def fixed(edit: Edit, format: str) -> Tensor:
    """The vector [d] that an edit adds at each token; refuses an edit whose change depends on the token."""
    spec = edit.spec
    why = None
    if spec.op in LATENT_OPS:
        why = f"{spec.op!r} of features depends on what fires at each token"
    elif spec.op == "project":
        why = "'project' depends on the residual at each token"
    elif spec.unit == "norm":
        why = "a strength in unit 'norm' depends on the residual's norm at each token"
    elif edit.latents is not None:
        assert spec.sae is not None
        why = f"{spec.sae.name} rescales its input at each token, so 'max_act' is a different length at each"
    if why:
        raise UnsupportedError(f"The format {format} can only add fixed vectors, and {why}.")
    return added_vector(edit)


def scope_notes(recipe: Recipe, format: str) -> Notes:
    """What is lost because the format edits every token; refuses scopes that choose tokens."""
    scopes = {edit.spec.scope for edit in recipe.edits}
    for scope in scopes - {EVERY_TOKEN, Scope()}:
        given = ", ".join(f"{k}={v!r}" for k, v in scope if v != getattr(Scope(), k))
        raise UnsupportedError(f"The format {format} edits every token, and this recipe only some: Scope({given}).")
    if Scope() in scopes:
        return (f"{format} edits the first token (BOS) too, which this recipe leaves alone.",)
    return ()


def edits(recipe: Recipe) -> tuple[Edit, ...]:
    """The edits of a recipe that has some."""
    if not recipe.edits:
        raise InputError("This recipe has no edits, so there is nothing to export.")
    return recipe.edits


def one_site(vectors: dict[Site, Tensor], format: str) -> tuple[Site, Tensor]:
    """The only site; refuses several."""
    if len(vectors) > 1:
        raise UnsupportedError(
            f"The format {format} holds a vector of one block, and this recipe edits {len(vectors)}: "
            f"{', '.join(map(str, vectors))}."
        )
    return next(iter(vectors.items()))


def block_outputs(vectors: dict[Site, Tensor], format: str, first: int = 0) -> dict[int, Tensor]:
    """Block index -> vector; refuses sites before the output of block `first`."""
    for site in vectors:
        if site.layer < first:
            raise UnsupportedError(f"The format {format} starts at the output of block {first}, so it has no {site}.")
    return {site.layer: vector for site, vector in vectors.items()}


def recipe_of(vectors: Iterable[tuple[int, Tensor]], format: str, hint: str | None = None) -> tuple[Recipe, Notes]:
    """A recipe that adds (block, vector [d]) at every token, and what to know about it. Zero vectors are left out."""
    recipe, kept = Recipe(), []
    for layer, vector in vectors:
        if vector.numel() and not bool(vector.any()):
            continue
        recipe += Recipe.vector(vector, layer, scope=EVERY_TOKEN)
        kept.append(vector)
    if not kept:
        raise InputError("it has no vector that is not zero")
    _same_width(kept)
    settings = {"imported_from": Setting(value=format, given=True)}
    if hint:
        settings["model_hint"] = Setting(value=hint, given=True)
    said = f"the file says {hint!r}" if hint else "the file does not say"
    return Recipe(recipe.edits, About(settings=settings)), (
        f"Which model the vectors were made for cannot be checked ({said}); only their width is, when they are used.",
    )


def _same_width(vectors: Iterable[Tensor]) -> None:
    widths = sorted({len(vector) for vector in vectors})
    if len(widths) > 1:
        raise InputError(f"The vectors have different widths: {', '.join(map(str, widths))}.")
