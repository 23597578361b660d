"""How well does each judge tell the held-out positive from the held-out negative texts of the shipped concepts?

python bench/judges.py --out bench/results/judges.json

Each set is halved: a judge learns from one half and is tried on the other, and once more with the labels of the half
that it learns from shuffled.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import about

from trimtab import open_model, open_sae
from trimtab.evidence.judges.classifier import classifier
from trimtab.evidence.judges.embedding import embedding_judge
from trimtab.evidence.judges.features import carrier_judge
from trimtab.evidence.judges.judge import Judge
from trimtab.evidence.judges.words import word_judge
from trimtab.files import write_json
from trimtab.find.pairs import ContrastSet
from trimtab.find.sources import shipped, shipped_names

Make = Callable[[ContrastSet, ContrastSet], Judge]


def shuffled(contrast: ContrastSet, seed: int = 0) -> ContrastSet:
    """Each pair with its sides exchanged or not, by a coin."""
    coin = random.Random(seed)
    pairs = [
        pair if coin.random() < 0.5 else pair[::-1] for pair in zip(contrast.positive, contrast.negative, strict=True)
    ]
    return replace(contrast, positive=tuple(a for a, _ in pairs), negative=tuple(b for _, b in pairs))


def halves(contrast: ContrastSet) -> tuple[ContrastSet, ContrastSet]:
    parts = contrast.split((0.5, 0.25, 0.25))
    texts = [tuple(getattr(one, side) for one in parts[1:]) for side in ("positive", "negative")]
    return parts.train, replace(contrast, positive=sum(texts[0], ()), negative=sum(texts[1], ()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concepts", nargs="+", default=shipped_names())
    parser.add_argument("--draws", type=int, default=1, help="shufflings of the labels")
    args = parser.parse_args()
    model = open_model("gemma-3-270m")
    saes = [open_sae("gemma-3-270m"), open_sae("gemma-3-270m-block-9")]
    makers: dict[str, Make] = {
        "classifier": classifier,
        "word list": word_judge,
        "embedding": embedding_judge,
        **{f"features of {sae.name}": lambda a, b, sae=sae: carrier_judge(model, sae, a, b) for sae in saes},
    }
    began, results = time.monotonic(), []
    for concept in args.concepts:
        train, held = halves(shipped(concept))
        found: dict[str, Any] = {"concept": concept, "train": len(train), "held": len(held), "judges": {}}
        for name, make in makers.items():
            wrong = [make(shuffled(train, seed), held) for seed in range(args.draws)]
            found["judges"][name] = {
                "skill": make(train, held).as_dict()["skill"],
                "shuffled": [one.as_dict()["skill"] for one in wrong],
            }
        results.append(found)
        print(concept, {k: round(v["skill"]["auc"], 2) for k, v in found["judges"].items()}, flush=True)
    write_json(args.out, {"about": about(model), "seconds": time.monotonic() - began, "results": results})


if __name__ == "__main__":
    main()
