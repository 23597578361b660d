"""From options to a model, an SAE and a recipe. Used by `steer` and `verify`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.cli.console import say
from trimtab.cli.options import DEFAULT, Operation, Unit
from trimtab.errors import FileError, InputError

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE
    from trimtab.spec import Dose
    from trimtab.steer.dose_curve import Chosen
    from trimtab.steer.dose_texts import Progress
    from trimtab.steer.recipe import Recipe


@dataclass(frozen=True)
class Wanted:
    """What the options ask for, before anything is opened. `dose` None: the strengths are used as they are."""

    features: dict[int, float]
    unit: Unit | None
    operation: Operation
    vector: Path | None
    site: str | None
    strength: float
    recipe: Path | None
    dose: Dose | None = None

    @classmethod
    def check(
        cls,
        features: Sequence[str] | None,
        unit: Unit | None,
        operation: Operation,
        vector: Path | None,
        site: str | None,
        strength: float | None,
        recipe: Path | None,
        dose: str | None = None,
    ) -> Wanted:
        """The options, once all that can be said without opening a model has been checked."""
        if not (features or vector or recipe):
            raise InputError("Nothing to steer with: give --feature, --vector or --recipe.")
        if vector is not None and site is None:
            raise InputError("--vector needs --site, where in the residual stream it is added, such as --site 9.")
        if vector is None and (site is not None or strength is not None):
            raise InputError("--site and --strength belong to --vector; a feature has its strength after the colon.")
        if unit is not None and vector is None and operation in ("scale", "ablate"):
            raise InputError(f"--op {operation} takes no --unit.")
        for path in (vector, recipe):
            if path is not None and not path.is_file():
                raise FileError(f"No such file: {path}")
        others = ([strength is not None] if vector is not None else []) + ([True] if recipe is not None else [])
        wanted = _dose(dose, features or (), operation, others)
        chosen = parse_features(features or (), operation, one=2.0 if operation == "scale" else 1.0)
        strength = 1.0 if strength is None else strength
        return cls(chosen, unit, operation, vector, site, strength, recipe, wanted)


def _dose(given: str | None, features: Sequence[str], operation: Operation, others: Sequence[bool]) -> Dose | None:
    """The dose asked for; `auto` where no strength was given; None where all were. `others`: vector and recipe file."""
    from trimtab.spec import Dose

    if given is not None:
        if operation == "ablate" and features:
            raise InputError("--op ablate sets a feature to 0, so there is no --dose to choose; --op scale has one.")
        return Dose.of(given)
    known = [operation == "ablate" or ":" in item for item in features] + list(others)
    if all(known):
        return None
    if any(known):
        raise InputError(
            "Some strengths are given and some are not. Give all or none; or with --dose, which takes those that are "
            "given as proportions, and 1 for the others."
        )
    return Dose.of("auto")


def open_pair(
    model_name: str, sae_name: str | None, device: str | None, dtype: str | None, blocks: str | None, *, need_sae: bool
) -> tuple[Model, SAE | None]:
    """The model, and the SAE if one is named or needed. The small file is opened first, so that mistakes show early."""
    from trimtab.sae.load import check_fits, open_sae

    sae = None
    if sae_name is None and need_sae:
        if model_name != DEFAULT:
            raise InputError(
                f"Features need an SAE of {model_name!r}; name one with --sae (`trimtab saes` lists them)."
            )
        sae_name = DEFAULT
    if sae_name is not None:
        say(f"opening the SAE {sae_name}")
        sae = open_sae(sae_name)
    from trimtab.lm.load import open_model

    say(f"opening the model {model_name}")
    model = open_model(model_name, device=device, dtype=dtype, blocks=blocks, say=say)
    if sae is not None:
        check_fits(sae, model)
        sae = sae.to(model.device)
    return model, sae


def open_several(
    model_name: str, sae_names: Sequence[str] | None, device: str | None, dtype: str | None, blocks: str | None
) -> tuple[Model, list[SAE]]:
    """The model and its SAEs, of different sites; without names the shipped one."""
    from trimtab.sae.load import check_fits, open_sae

    model, first = open_pair(model_name, sae_names[0] if sae_names else None, device, dtype, blocks, need_sae=True)
    assert first is not None
    saes = [first]
    for name in sae_names[1:] if sae_names else ():
        say(f"opening the SAE {name}")
        saes.append(open_sae(name).to(model.device))
        check_fits(saes[-1], model)
    return model, saes


def make_recipe(wanted: Wanted, sae: SAE | None) -> Recipe:
    """The recipe that the options describe: features, vector and recipe file joined."""
    from trimtab.steer.recipe import Recipe

    recipe = Recipe()
    if wanted.recipe is not None:
        recipe += Recipe.load(wanted.recipe, sae)
    if wanted.features:
        assert sae is not None
        recipe += _of_features(wanted, sae)
    if wanted.vector is not None:
        assert wanted.site is not None
        recipe += Recipe.vector(read_vector(wanted.vector), _site(wanted.site), wanted.strength, wanted.unit or "raw")
    return recipe


def dosed(
    recipe: Recipe, wanted: Wanted, model: Model, sae: SAE | None, progress: Progress
) -> tuple[Recipe, Chosen | None]:
    """The recipe at the strength that was asked for, and how it was chosen (None: the strengths were given)."""
    if wanted.dose is None:
        return recipe, None
    from trimtab.steer.dose import TEXTS, choose

    say(f"choosing the strength: dose {wanted.dose}")
    own = sae if sae is not None and recipe.reads(sae) else None
    chosen = choose(model, recipe, wanted.dose, sae=own, texts=TEXTS, progress=progress)
    say(chosen.said)
    return chosen.recipe, chosen


def parse_features(given: Sequence[str], operation: Operation, one: float | None = None) -> dict[int, float]:
    """`["123:1.5", "9:-2"]` -> `{123: 1.5, 9: -2.0}`; for ablate, indices alone, and so with `one`, which they get."""
    chosen: dict[int, float] = {}
    for item in given:
        left, colon, right = item.partition(":")
        try:
            index = int(left)
            strength = float(right) if colon else (one or 0.0)
        except ValueError:
            raise InputError(f"A feature is INDEX:STRENGTH, such as 123:1.5, not {item!r}.") from None
        if bool(colon) == (operation == "ablate") and (colon or one is None):
            form = "INDEX alone, such as 123" if operation == "ablate" else "INDEX:STRENGTH, such as 123:1.5"
            raise InputError(f"With --op {operation} a feature is {form}, not {item!r}.")
        if not math.isfinite(strength):
            raise InputError(f"The strength of feature {index} must be a finite number, not {right}.")
        if index in chosen:
            raise InputError(f"Feature {index} is given twice.")
        chosen[index] = strength
    return chosen


def _of_features(wanted: Wanted, sae: SAE) -> Recipe:
    from trimtab.steer.recipe import Recipe

    chosen, unit = wanted.features, wanted.unit or "max_act"
    match wanted.operation:
        case "add":
            return Recipe.add(sae, chosen, unit=unit)
        case "clamp":
            return Recipe.clamp(sae, chosen, unit=unit)
        case "min":
            return Recipe.min(sae, chosen, unit=unit)
        case "max":
            return Recipe.max(sae, chosen, unit=unit)
        case "scale":
            return Recipe.scale(sae, chosen)
        case "ablate":
            return Recipe.ablate(sae, chosen)


def read_vector(path: Path) -> Tensor:
    """A vector [d] from .npy, .json (a list of numbers) or .safetensors (one tensor). Nothing is unpickled."""
    import torch

    try:
        if path.suffix == ".npy":
            import numpy as np

            return torch.as_tensor(np.load(path, allow_pickle=False)).float()
        if path.suffix == ".json":
            return torch.tensor(json.loads(path.read_text(encoding="utf-8")), dtype=torch.float32)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
            if len(tensors) != 1:
                raise FileError(f"{path} holds {len(tensors)} tensors; a vector file holds one.")
            return next(iter(tensors.values())).float()
    except FileError:
        raise
    except Exception as error:  # each reader has its own kinds of error for a damaged file
        raise FileError(f"{path} is not a readable vector: {str(error).splitlines()[0]}") from None
    raise FileError(f"{path} is not a vector file. Valid: .npy, .json (a list of numbers), .safetensors (one tensor).")


def _site(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdigit() else text
