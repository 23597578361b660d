"""Steer language models along sparse-autoencoder features, and prove what the steering did.

    import trimtab

    model = trimtab.open_model("gemma-3-270m")
    sae = trimtab.open_sae("gemma-3-270m")
    recipe = trimtab.Recipe.add(sae, {123: 1.5}, unit="max_act")
    records = trimtab.generate(model, "Once upon a time", recipe, samples=5)
    evidence = trimtab.verify(model, sae, recipe, ["Once upon a time"], samples=20)
    print(evidence.verdict)

Names load on first use (PEP 562): `import trimtab` imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.errors import FileError as FileError
    from trimtab.errors import InputError as InputError
    from trimtab.errors import MismatchError as MismatchError
    from trimtab.errors import StorageError as StorageError
    from trimtab.errors import TrimtabError as TrimtabError
    from trimtab.errors import UnsupportedError as UnsupportedError
    from trimtab.evidence.ask import Asked as Asked
    from trimtab.evidence.ask import ask as ask
    from trimtab.evidence.values import Evidence as Evidence
    from trimtab.evidence.verify import verify as verify
    from trimtab.find.find import Finding as Finding
    from trimtab.find.pairs import ContrastSet as ContrastSet
    from trimtab.lm.load import open_model as open_model
    from trimtab.lm.model import Model as Model
    from trimtab.sae.load import open_sae as open_sae
    from trimtab.sae.sae import SAE as SAE
    from trimtab.spec import Sampling as Sampling
    from trimtab.spec import Scope as Scope
    from trimtab.spec import Site as Site
    from trimtab.steer.generate import Record as Record
    from trimtab.steer.generate import generate as generate
    from trimtab.steer.grid import SweepSpec as SweepSpec
    from trimtab.steer.recipe import Recipe as Recipe
    from trimtab.steer.sweep import sweep as sweep

_HOME = {
    "Asked": "trimtab.evidence.ask",
    "ContrastSet": "trimtab.find.pairs",
    "Evidence": "trimtab.evidence.values",
    "FileError": "trimtab.errors",
    "Finding": "trimtab.find.find",
    "InputError": "trimtab.errors",
    "MismatchError": "trimtab.errors",
    "Model": "trimtab.lm.model",
    "Recipe": "trimtab.steer.recipe",
    "Record": "trimtab.steer.generate",
    "SAE": "trimtab.sae.sae",
    "Sampling": "trimtab.spec",
    "Scope": "trimtab.spec",
    "Site": "trimtab.spec",
    "StorageError": "trimtab.errors",
    "SweepSpec": "trimtab.steer.grid",
    "TrimtabError": "trimtab.errors",
    "UnsupportedError": "trimtab.errors",
    "ask": "trimtab.evidence.ask",
    "generate": "trimtab.steer.generate",
    "open_model": "trimtab.lm.load",
    "open_sae": "trimtab.sae.load",
    "sweep": "trimtab.steer.sweep",
    "verify": "trimtab.evidence.verify",
}

__version__ = "0.1.0"
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import the module that holds `name`, and remember the value."""
    if name not in _HOME:
        raise AttributeError(f"module 'trimtab' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
