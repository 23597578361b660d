"""How well does each judge tell the held-out positive from the held-out negative texts of the shipped concepts?

python bench/judges.py --out bench/results/judges.json

Each set is halved: a judge learns from one half and is tried on the other, and again with the labels of both
halves shuffled. What the file has already is not tried again.
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
from trimtab.lm.model import Model

Make = Callable[[ContrastSet, ContrastSet], Judge]


WORDS: dict[str, Make] = {"classifier": classifier, "word list": word_judge, "embedding": embedding_judge}
OF = "features of "
FEATURES = (f"{OF}gemma-3-270m", f"{OF}gemma-3-270m-block-9")


def carrying(model: Model, sae: str) -> Make:
    opened = open_sae(sae)
    return lambda train, held: carrier_judge(model, opened, train, held)


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
    parser.add_argument("--judges", nargs="+", choices=[*WORDS, *FEATURES], default=[*WORDS, *FEATURES])
    parser.add_argument("--draws", type=int, default=1, help="shufflings of the labels")
    args = parser.parse_args()
    model = open_model("gemma-3-270m")
    results = read_json(args.out)["results"] if args.out.exists() else []
    for concept in args.concepts:
        held, train = halves(shipped(concept))
        found: dict[str, Any] = next((one for one in results if one["concept"] == concept), {})
        if not found:
            found |= {"concept": concept, "train": len(train), "held": len(held), "judges": {}}
            results.append(found)
        for name in [one for one in args.judges if one not in found["judges"]]:
            make = WORDS.get(name) or carrying(model, name.removeprefix(OF))
            wrong = [make(shuffled(train, seed), shuffled(held, ~seed)) for seed in range(args.draws)]
            skills = [one.as_dict()["skill"] for one in (make(train, held), *wrong)]
            found["judges"][name] = {"skill": skills[0], "shuffled": skills[1:]}
            write_json(args.out, {"about": about(model), "results": results})
            print(concept, name, round(skills[0]["auc"], 2), flush=True)


if __name__ == "__main__":
    main()
