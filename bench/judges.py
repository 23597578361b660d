"""How well does each judge tell the held-out positive from the held-out negative texts of the shipped concepts?

python bench/judges.py --out bench/results/judges.json

Each set is halved: a judge learns from one half and is tried on the other, and again with the labels of the half that
it learns from shuffled. Concepts that the file has already are not tried again.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from machine import about

from trimtab import open_model, open_sae
from trimtab.evidence.benchmark.concepts import halves
from trimtab.evidence.judges.classifier import classifier
from trimtab.evidence.judges.embedding import embedding_judge
from trimtab.evidence.judges.features import carrier_judge
from trimtab.evidence.judges.judge import Judge
from trimtab.evidence.judges.words import word_judge
from trimtab.files import read_json, write_json
from trimtab.find.pairs import ContrastSet
from trimtab.find.sources import shipped, shipped_names

Make = Callable[[ContrastSet, ContrastSet], Judge]


def shuffled(contrast: ContrastSet, seed: int = 0) -> ContrastSet:
    """Half of the pairs, drawn at random, with their sides exchanged."""
    n = len(contrast)
    turned = set(random.Random(seed).sample(range(n), n // 2))
    pairs = zip(contrast.positive, contrast.negative, strict=True)
    sides = [pair[::-1] if i in turned else pair for i, pair in enumerate(pairs)]
    return replace(contrast, positive=tuple(a for a, _ in sides), negative=tuple(b for _, b in sides))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--concepts", nargs="+", default=shipped_names())
    parser.add_argument("--draws", type=int, default=2, help="shufflings of the labels")
    args = parser.parse_args()
    model = open_model("gemma-3-270m")
    saes = [open_sae("gemma-3-270m"), open_sae("gemma-3-270m-block-9")]
    makers: dict[str, Make] = {
        "classifier": classifier,
        "word list": word_judge,
        "embedding": embedding_judge,
        **{f"features of {sae.name}": lambda a, b, sae=sae: carrier_judge(model, sae, a, b) for sae in saes},
    }
    results = read_json(args.out)["results"] if args.out.exists() else []
    for concept in [name for name in args.concepts if name not in [one["concept"] for one in results]]:
        held, train = halves(shipped(concept))
        found: dict[str, Any] = {"concept": concept, "train": len(train), "held": len(held), "judges": {}}
        for name, make in makers.items():
            wrong = [make(shuffled(train, seed), held) for seed in range(args.draws)]
            found["judges"][name] = {
                "skill": make(train, held).as_dict()["skill"],
                "shuffled": [one.as_dict()["skill"] for one in wrong],
            }
        results.append(found)
        results.sort(key=lambda one: one["concept"])
        write_json(args.out, {"about": about(model), "results": results})
        print(concept, {k: round(v["skill"]["auc"], 2) for k, v in found["judges"].items()}, flush=True)


if __name__ == "__main__":
    main()
