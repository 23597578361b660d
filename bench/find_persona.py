"""At most 32 features against a dense probe: do a few features of the SAE read what model-written evals ask for?

    python bench/find_persona.py FOLDER [--model gemma-3-270m] [--sae gemma-3-270m] [--out FILE.json]

FOLDER holds sets of Anthropic's model-written evals (`NAME.jsonl` or `.jsonl.gz`, Perez et al. 2022). Of each,
statements that the behaviour would affirm stand against the others. Features are chosen, and both probes fitted, on
train; the rule of choosing that has the best mean AUC on dev (over all sets) is the one whose test numbers count. The
SAE was trained on the first 400 statements of each set, among other texts: dev and test are of later ones only.
Results only are written, no sentences. A set that is in the results already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import about

from trimtab import open_model, open_sae
from trimtab.files import write_file
from trimtab.find.contrast import Activations, collect
from trimtab.find.overlap import near_duplicates
from trimtab.find.pairs import Splits
from trimtab.find.probe import Probe, probe, separating
from trimtab.find.rows import rows_of
from trimtab.find.select import Filters, score
from trimtab.find.sources import from_rows
from trimtab.find.stats import separation

LIMIT = 32
SEEN = 400
DENSE = "dense"
Rule = Callable[[Activations], list[int]]


def one_by_one(rule: Filters) -> Rule:
    """The features of largest effect, each looked at alone."""
    return lambda train: [one.index for one in score(train, train, rule)[:LIMIT]]


RULES: dict[str, Rule] = {
    "together": lambda train: separating(train, LIMIT),
    "together, density up to 0.1": lambda train: separating(train, LIMIT, 0.1),
    "together, at most 8": lambda train: separating(train, 8),
    "one by one, both signs": one_by_one(Filters(max_density=1.0, both_sides=True)),
    "one by one, density up to 0.1": one_by_one(Filters(max_density=0.1)),
    "the best one": lambda train: separating(train, 1),
}


def split(path: Path, dev: int = 150, test: int = 300, seed: int = 0) -> Splits:
    """Train, dev and test texts; dev and test of rows that the SAE has not seen, and no near duplicate in two parts."""
    rows = rows_of(path)
    late = list(range(SEEN, len(rows)))
    random.Random(f"persona {seed}").shuffle(late)
    parts = [list(range(SEEN)) + late[dev + test :], late[test : test + dev], late[:test]]
    kind = {row: i for i, part in enumerate(parts) for row in part}
    leaking = set()
    for i, j in near_duplicates([row["statement"] for row in rows]):
        if kind[i] != kind[j]:
            leaking.add(i if kind[i] < kind[j] else j)
    name = path.name.split(".")[0]
    return Splits(*(from_rows([rows[i] for i in part if i not in leaking], name) for part in parts))


def interval(found: Probe, dense: Probe, draws: int = 2000, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the ratio of two AUCs: statements are redrawn, the same for both probes."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        pos, neg = (rng.integers(0, len(side), len(side)) for side in (found.positive, found.negative))
        both = [np.stack([getattr(p, side)[rows] for p in (found, dense)], 1) for side, rows in
                (("positive", pos), ("negative", neg))]  # fmt: skip
        auc = separation(both[0], both[1]).auc
        ratios.append(auc[0] / auc[1])
    return [float(x) for x in np.quantile(ratios, [0.025, 0.975])]


def measure(train: Activations, dev: Activations, test: Activations) -> dict[str, Any]:
    """AUC of every rule's features on dev and on test, and of the dense probe on test."""
    dense = probe(train, test)
    result: dict[str, Any] = {DENSE: {"test": dense.auc}}
    for name, choose in RULES.items():
        features = choose(train)
        found = probe(train, test, features)
        result[name] = {
            "features": features, "dev": probe(train, dev, features).auc, "test": found.auc,
            "ratio": found.auc / dense.auc, "interval": interval(found, dense),
        }  # fmt: skip
    return result


def main() -> None:
    """Measure set by set; write after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sae", default="gemma-3-270m")
    parser.add_argument("--out", type=Path, default=Path("bench/results/find_persona.json"))
    args = parser.parse_args()
    model, sae = open_model(args.model), open_sae(args.sae)
    said = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"sets": {}}
    said["about"] = {**about(model), "sae": sae.name, "site": str(sae.site), "limit": LIMIT}
    for path in sorted([*args.folder.glob("*.jsonl"), *args.folder.glob("*.jsonl.gz")]):
        name = path.name.split(".")[0]
        if name in said["sets"]:
            continue
        parts = split(path)
        train, dev, test = (collect(model, sae, part)[0] for part in parts)
        sizes = {
            kind: [len(part.positive), len(part.negative)] for kind, part in zip(parts._fields, parts, strict=True)
        }
        said["sets"][name] = {"texts": sizes, **measure(train, dev, test)}
        means = {rule: float(np.mean([one[rule]["dev"] for one in said["sets"].values()])) for rule in RULES}
        said["dev"], said["rule"] = means, max(means, key=lambda rule: means[rule])
        with write_file(args.out) as part:
            part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        mine = said["sets"][name]["together"]
        print(f"{name}: ratio {mine['ratio']:.3f} {mine['interval']} ({len(mine['features'])} features)", flush=True)
    ratios = {name: one[said["rule"]]["ratio"] for name, one in said["sets"].items()}
    print(f"rule by dev: {said['rule']}; below 0.95: {[name for name, r in ratios.items() if r < 0.95] or 'none'}")


if __name__ == "__main__":
    main()
