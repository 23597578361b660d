"""What steering costs in processor time: decoding steps with one thread, which other programs disturb little.

    OMP_NUM_THREADS=1 python bench/overhead.py [--rows 128] [--rounds 9] [--steps 4] [--out steps.json]

Each round writes a few tokens unsteered, with a vector of its own on every row, and with 8 latents of its own clamped
on every row, in turns that change their order. All rows share one prompt, whose pass is not counted. Beside them are
the matrix products of a step alone, with packed weights, where the machine has such.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import contestants as who
import torch
from machine import about

from trimtab import Model, Recipe, Sampling, open_model
from trimtab.lm.decode import Row, decode
from trimtab.lm.packed import can_pack
from trimtab.lm.sampling import stream_key


def seconds_of_a_step(model: Model, recipes: Sequence[Recipe | None], steps: int) -> float:
    """Median processor time of a decoding step."""
    prompt = tuple(model.encode(who.PROMPT.format(1)))
    sampling = Sampling(max_new_tokens=steps + 1)
    rows = [Row(prompt, stream_key(0, "", i), sampling, recipe, edits_prompt=False) for i, recipe in enumerate(recipes)]
    times: list[float] = []
    decode(model, rows, batch_size=len(rows), progress=lambda _: times.append(time.process_time()))
    return statistics.median(after - before for before, after in pairwise(times))


def seconds_of_products(run: Callable[[int], None]) -> float:
    """Processor time of the products of a step."""
    began = time.process_time()
    run(1)
    return time.process_time() - began


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = open_model(args.model)
    layer = model.n_layers // 2
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    contestants: dict[str, list[Recipe | None]] = {
        "plain": [None] * args.rows,
        "add": [Recipe.vector(vector, layer, 1 + row / 1000) for row in range(args.rows)],
        "clamp_8": who.clamp_of(who.random_sae(model, layer), args.rows),
    }
    measures = {name: partial(seconds_of_a_step, model, one, args.steps) for name, one in contestants.items()}
    if can_pack(model):
        measures["packed_products"] = partial(seconds_of_products, who.bare_products(model, args.rows, packed=True))
    milliseconds: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(-1, args.rounds):  # the first one warms up
        for name in sorted(measures, reverse=bool(turn % 2)):
            step = measures[name]()
            if turn >= 0:
                milliseconds[name].append(1e3 * step)
        print(turn, {name: round(times[-1]) for name, times in milliseconds.items() if times}, flush=True)
    ratios = {
        name: statistics.median(a / b for a, b in zip(milliseconds["plain"], times, strict=True))
        for name, times in milliseconds.items()
    }
    result: dict[str, Any] = {
        "rows": args.rows, "rounds": args.rounds, "milliseconds": milliseconds, "ratios": ratios,
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    print(ratios)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"about": about(model), "results": result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
