"""The SAEs that come in the package: listed without loading them (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.files import read_json

SHIPPED = Path(__file__).parent.parent / "data" / "saes"


@dataclass(frozen=True)
class Listing:
    """One line of `trimtab saes`: what the SAE's own files say."""

    name: str
    path: Path
    model_name: str | None
    hook_name: str | None
    architecture: str
    d_in: int
    d_sae: int
    card: dict[str, Any]


def list_saes(folder: Path | None = None) -> list[Listing]:
    """The SAEs in the package (or the SAELens folders in `folder`), by name."""
    found = []
    for cfg_file in sorted((folder or SHIPPED).glob("*/cfg.json")):
        cfg = read_json(cfg_file)
        about = {**cfg, **(cfg.get("metadata") or {})}
        card = cfg_file.with_name("card.json")
        found.append(
            Listing(
                name=cfg_file.parent.name,
                path=cfg_file.parent,
                model_name=about.get("model_name"),
                hook_name=about.get("hook_name"),
                architecture=str(cfg.get("architecture", "standard")),
                d_in=int(cfg["d_in"]),
                d_sae=int(cfg["d_sae"]),
                card=read_json(card) if card.is_file() else {},
            )
        )
    return found
