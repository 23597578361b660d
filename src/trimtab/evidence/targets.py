"""What a recipe is meant to move: the features that are read, their weights, and the direction wanted."""

from __future__ import annotations

from collections.abc import Mapping

from trimtab.errors import InputError
from trimtab.evidence.values import Target
from trimtab.sae.sae import SAE
from trimtab.spec import finite
from trimtab.steer.recipe import Recipe
from trimtab.steer.spec import EditSpec

WEIGHTED_SUM = "weighted sum"


def targets_of(recipe: Recipe, sae: SAE, read: Mapping[int, float] | None = None) -> tuple[Target, ...]:
    """One target per feature of `recipe` that belongs to `sae`; with several, their weighted sum comes first. A recipe
    of plain vectors has those that it says it is read with.

    `read` (feature -> weight, negative where it should fall) replaces them, for recipes of plain vectors or to read
    with another SAE than the one that steered. The first target is the one that the verdict is about.
    Raises `InputError` when nothing is left to read.
    """
    if read is not None:
        pulls = {sae.features([f])[0]: finite(w, f"The weight of feature {f}") for f, w in read.items()}
    else:
        pulls = _pulls(recipe, sae) or recipe.about.reads.get(sae.fingerprint, {})
    pulls = {feature: pull for feature, pull in pulls.items() if pull}
    if not pulls:
        raise InputError(
            f"There is nothing to verify: the recipe has no feature of {sae.name} with a strength. "
            "Name the features to read: --read 8123:1, or read={8123: 1.0} in Python."
        )
    norms = sae.rows(pulls).norm(dim=-1).tolist()
    singles = tuple(
        Target(
            name=f"feature {feature}",
            features=(feature,),
            weights=(1.0,),
            wanted=1 if pull > 0 else -1,
            max_strength=float(sae.max_act[feature]) * norm if sae.max_act is not None else None,
            density=float(sae.density[feature]) if sae.density is not None else None,
        )
        for (feature, pull), norm in zip(pulls.items(), norms, strict=True)
    )
    if len(singles) == 1:
        return singles
    all_down = all(pull < 0 for pull in pulls.values())
    largest = max(abs(pull) for pull in pulls.values())
    weights = tuple((-pull if all_down else pull) / largest for pull in pulls.values())
    total = Target(name=WEIGHTED_SUM, features=tuple(pulls), weights=weights, wanted=-1 if all_down else 1)
    return (total, *singles)


def _pulls(recipe: Recipe, sae: SAE) -> dict[int, float]:
    """Per feature how hard, and in which direction, the recipe pulls it."""
    pulls: dict[int, float] = {}
    for spec in (edit.spec for edit in recipe.edits):
        if spec.sae is not None and spec.sae.fingerprint == sae.fingerprint:
            for feature, strength in zip(spec.features, spec.strengths, strict=True):
                pulls[feature] = pulls.get(feature, 0.0) + _pull(spec, strength)
    return pulls


def _pull(spec: EditSpec, strength: float) -> float:
    if spec.op in ("ablate", "max"):
        return -1.0
    if spec.op == "scale":
        return strength - 1
    if spec.op == "clamp":
        return strength if strength else -1.0
    return strength
