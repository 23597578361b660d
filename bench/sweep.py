"""A whole sweep, ours, against the tutorials' way of writing the same texts one by one.

    python bench/sweep.py [--model gemma-3-270m] [--sample 6] [--out sweep.json]

10 features x 6 strengths x 2 prompts x 4 seeds x 60 tokens, and the 8 unsteered texts that belong to every sweep.
The tutorials' way (TransformerLens with a hook) writes a sample of texts before and after our sweep,
and its time is scaled to the 480 texts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import contestants as who
import torch
from machine import about

from trimtab import Sampling, open_model
from trimtab.steer.grid import SweepSpec
from trimtab.steer.sweep import estimate, sweep


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sample", type=int, default=3, help="texts of the tutorials' way before, and as many after")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = open_model(args.model)
    layer = model.n_layers // 2
    sae = who.random_sae(model, layer)
    write = who.tutorial(open_model(args.model), layer, sae.rows([0])[0])
    spec = SweepSpec(
        prompts=(who.PROMPT.format(1), "The weather in the mountains was"),
        features=tuple(range(10)),
        strengths=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
        unit="raw",
        seeds=(0, 1, 2, 3),
        sampling=Sampling(max_new_tokens=args.tokens),
    )
    write(1, 4)

    def sample() -> float:
        began = time.perf_counter()
        write(args.sample, args.tokens)
        return (time.perf_counter() - began) / args.sample

    before = sample()
    with tempfile.TemporaryDirectory() as folder:
        cost = estimate(model, sae, spec, Path(folder))
        began = time.perf_counter()
        run = sweep(model, sae, spec, folder)
        seconds = time.perf_counter() - began
        tokens = sum(len(one["token_ids"]) - one["generated_from"] for one in run.texts())
    after = sample()
    per_text = (before + after) / 2
    texts = spec.n_rows - len(spec.prompts) * len(spec.seeds)
    result: dict[str, Any] = {
        "texts": spec.n_rows, "tokens": tokens, "seconds": seconds, "tokens_per_second": tokens / seconds,
        "seconds_promised_by_dry_run": cost.seconds, "tutorial_seconds_per_text": [before, after],
        "tutorial_seconds_scaled": per_text * texts, "ratio": per_text * texts / seconds, "load": os.getloadavg()[0],
        "tutorial_texts_timed": 2 * args.sample,
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"about": about(model), "results": result}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
