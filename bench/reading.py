"""With which features is a recipe of vectors read? The one that tells the sides apart best, or all that are found.

    trimtab bench -o runs/bench --method find --kl 0.5
    python bench/reading.py runs/bench docs/evidence.md

How often each fires in the texts that `find` steered in a benchmark's folder, and in the unsteered ones.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from page import put
from tables import table

from trimtab import open_model, open_sae
from trimtab.evidence.benchmark.concepts import shipped_concepts
from trimtab.evidence.benchmark.kit import FIND_SHARES
from trimtab.files import read_json, write_file
from trimtab.find.candidates import reader
from trimtab.find.find import Settings
from trimtab.find.select import FeatureScore, Filters, select
from trimtab.lm.model import Model
from trimtab.lm.reading import residuals
from trimtab.sae.sae import SAE

METHOD = "find@0.5"


def main() -> None:
    """Read the folder, write the table."""
    folder, page = map(Path, sys.argv[1:3])
    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    rows = []
    for concept in shipped_concepts([]):
        train, dev, _ = concept.texts.split(FIND_SHARES)
        how = Settings()
        rule = Filters(fdr=how.fdr, max_density=how.max_density, min_coverage=how.min_coverage)
        found = [one for one in select(model, sae, train, dev, filters=rule, output=False) if one.sign > 0]
        if not found:
            rows.append([concept.name, "none", "", "0", ""])
            continue
        one = reader(found).index
        texts = [folder / "texts" / f"{name}.json" for name in ("unsteered", f"{concept.name}--{METHOD}")]
        told = [_told(*(rate(model, sae, path, features) for path in texts)) for features in ([one], _indices(found))]
        rows.append([concept.name, f"{one}", told[0], f"{len(found)}", told[1]])
    head = ["concept", "feature", "fires on, unsteered to steered", "features found", "any fires on"]
    with write_file(page) as part:
        part.write_text(
            put(page.read_text("utf-8"), "reading", table(head, rows), "bench/reading.py"), encoding="utf-8"
        )


def rate(model: Model, sae: SAE, path: Path, features: Sequence[int]) -> float:
    """Share of the generated tokens of a file of texts on which any of the features fires."""
    texts = read_json(path)["texts"]
    lists = [one["token_ids"] for one in texts]
    fired = total = 0
    for index, h in residuals(model, sae.site, lists):
        new = h[len(h) - (len(lists[index]) - texts[index]["start"]) :]
        fired += int((sae.encode(new.float())[:, list(features)] > 0).any(1).sum())
        total += len(new)
    return fired / total


def _indices(found: Sequence[FeatureScore]) -> list[int]:
    return [one.index for one in found]


def _told(plain: float, steered: float) -> str:
    return f"{plain:.1%} to {steered:.1%} ({steered / plain:.1f} times)"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
