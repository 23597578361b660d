"""What a benchmark is made of: its settings, its units, and the folder that keeps them, each complete or not there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.evidence.benchmark.concepts import Concept
from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.prompts import TEST
from trimtab.files import read_json, write_json
from trimtab.spec import Sampling, Spec

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

FORMAT = "trimtab.benchmark/1"
MANIFEST = "benchmark.json"
UNSTEERED = "unsteered"


class BenchSpec(Spec):
    """How texts are written: the same for all units of a folder."""

    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = TEST
    samples: Annotated[int, Field(ge=1)] = 8
    sampling: Sampling = Sampling(max_new_tokens=40)
    seed: int = 0


@dataclass(frozen=True)
class Unit:
    """One concept steered by one method at one KL budget (None for methods without one). The texts without steering
    are one unit for all concepts, with the concept None.
    """

    concept: str | None
    method: str
    budget: float | None

    @property
    def path(self) -> str:
        """Its file, without an ending, under any of the folders."""
        name = _slug(self.method) + ("" if self.budget is None else f"@{self.budget:g}")
        return name if self.concept is None else f"{_slug(self.concept)}/{name}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.__dict__)


def units_of(concepts: Sequence[str], methods: Sequence[str], budgets: Sequence[float]) -> list[Unit]:
    """All units, the texts without steering first, then concept by concept."""
    if not budgets or min(budgets) <= 0 or len(set(budgets)) < len(budgets):
        raise InputError(f"KL budgets must be different numbers above 0, not {list(budgets)}.")
    found = [Unit(None, UNSTEERED, None)]
    for concept in concepts:
        for method in methods:
            if METHODS[method].recipe is not None:
                found += [Unit(concept, method, budget) for budget in budgets]
            elif METHODS[method].prompt is not None:
                found.append(Unit(concept, method, None))
    if len({unit.path for unit in found}) < len(found):
        raise InputError("Two concepts have names that differ only in their punctuation.")
    return found


@dataclass(frozen=True)
class Folder:
    """A benchmark's folder. `made/` holds recipes and doses, `texts/` and `scores/` what became of them."""

    root: Path

    def file(self, kind: str, path: str, ending: str = ".json") -> Path:
        """The file of a unit."""
        return self.root / kind / f"{path}{ending}"

    def open(self, model: Model, saes: Sequence[SAE], spec: BenchSpec, concepts: Sequence[Concept]) -> None:
        """Begin, or go on with what is there. Concepts, methods and budgets may be added to a folder at any time.

        Raises `MismatchError` when the folder was made with another model, other SAEs or settings, or other texts of a
        concept; `FileError` when it is something else.
        """
        wanted = {
            "format": FORMAT,
            "model": {"name": model.name, "fingerprint": model.fingerprint, "dtype": str(model.dtype).split(".")[-1]},
            "saes": [{"name": sae.name, "fingerprint": sae.fingerprint, "site": str(sae.site)} for sae in saes],
            "spec": spec.model_dump(mode="json"),
        }
        digests = {concept.name: concept.digest for concept in concepts}
        path = self.root / MANIFEST
        if path.exists():
            there = read_json(path)
            differ = [key for key in wanted if there.get(key) != wanted[key]]
            changed = [name for name, digest in digests.items() if there["concepts"].get(name, digest) != digest]
            if differ or changed:
                what = [*differ, *(f"the texts of {name}" for name in changed)]
                raise MismatchError(
                    f"{self.root} holds a benchmark with other settings ({', '.join(what)}). Choose another folder."
                )
            digests = there["concepts"] | digests
        elif self.root.exists() and any(not one.name.startswith(".") for one in self.root.iterdir()):
            raise FileError(f"{self.root} exists and is not a benchmark's folder (it has no {MANIFEST}).")
        write_json(path, wanted | {"concepts": digests})


def _slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-.") or "-"
