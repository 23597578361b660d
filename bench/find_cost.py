"""What `find` costs beside the bare forward passes over the same tokens.

    python bench/find_cost.py [--pairs 100] [--rounds 5] [--out bench/results/find_cost.json]

Each round times, in turns that change their order: the bare forward passes of the model over the texts of the pairs, in
the same batches (with logits, without, and only up to the site); and `collect` (activations at one site, encoded by the
whole SAE, pooled) with the choice of features by their separation. Medians of the rounds, and of the ratios within a
round, are reported. The parts of `find` that measure outputs run over other tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import about

from trimtab import open_model, open_sae
from trimtab.files import write_file
from trimtab.find.contrast import batches, collect, tokenise
from trimtab.find.pairs import ContrastSet
from trimtab.find.select import Filters, score, with_density
from trimtab.find.sources import shipped, shipped_names
from trimtab.lm.model import Model
from trimtab.lm.residual import read
from trimtab.sae.sae import SAE


def pairs(n: int) -> ContrastSet:
    """The first pairs of the shipped sets, one set after another."""
    every = [shipped(name) for name in shipped_names()]
    rows = [(one.positive[i], one.negative[i]) for i in range(60) for one in every][:n]
    return ContrastSet.of([a for a, _ in rows], [b for _, b in rows], name=f"{n} pairs")


@torch.no_grad()
def bare(model: Model, contrast: ContrastSet, logits: bool = True) -> None:
    """Forward passes and nothing else, with or without the head."""
    run = model.hf if logits else model.hf.base_model
    for batch in batches(tokenise(model, contrast)):
        run(input_ids=batch.ids.to(model.device), attention_mask=batch.mask.to(model.device), use_cache=False)


@torch.no_grad()
def to_site(model: Model, sae: SAE, contrast: ContrastSet) -> None:
    """Forward passes that stop after the SAE's site."""
    for batch in batches(tokenise(model, contrast)):
        read(model, batch.ids, [sae.site], batch.mask)


def found(model: Model, sae: SAE, contrast: ContrastSet) -> int:
    """Activations of all texts at one site, and the features that tell them apart."""
    acts = collect(model, sae, contrast)[0]
    return len(score(with_density(acts, sae), acts, Filters(fdr=1.0, confirmed=False)))


def main() -> None:
    """Measure in turns, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sae", default="gemma-3-270m")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/results/find_cost.json"))
    args = parser.parse_args()
    model, sae, contrast = open_model(args.model), open_sae(args.sae), pairs(args.pairs)
    runs: dict[str, Callable[[], Any]] = {
        "bare, with logits": lambda: bare(model, contrast),
        "bare, without logits": lambda: bare(model, contrast, logits=False),
        "bare, up to the site": lambda: to_site(model, sae, contrast),
        "find": lambda: found(model, sae, contrast),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    found(model, sae, pairs(8))
    loads = []
    for turn in range(args.rounds):
        loads.append(round(os.getloadavg()[0], 2))
        for name in sorted(runs, reverse=bool(turn % 2)):
            began = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - began)
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds["find"], seconds[name], strict=True))
        for name in runs
        if name != "find"
    }
    said = {
        "about": about(model), "pairs": args.pairs, "tokens": sum(map(len, tokenise(model, contrast))),
        "seconds": seconds, "median": {k: statistics.median(v) for k, v in seconds.items()}, "ratio": ratios,
        "load": loads,
    }  # fmt: skip
    with write_file(args.out) as part:
        part.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    print(f"find over bare forward passes: {ratios['bare, with logits']:.2f}; load {loads}")


if __name__ == "__main__":
    main()
