"""What was tried and not kept: other formats of the weights, torch.compile, a shared beginning of different prompts.

    python bench/tried.py [--only formats compiled prefix] [--rows 1 8] [--out tried.json]

`formats` times the matrix products of one decoding step and nothing else, and reads texts with each format for the KL
divergence of its next-token distributions from those of float32. Formats of torchao are measured when it is installed.
`compiled` times whole decoding steps without the draw, ours beside torch.compile with a static cache; it needs a C++
compiler. `prefix` times the reading of prompts that begin alike. All of it is processor time of one thread, which other
programs disturb less than they do time on the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from formats import formats, median_seconds
from machine import about
from torch import Tensor

from trimtab import Model, open_model
from trimtab.lm.cache import RowCache
from trimtab.lm.decode import Row, decode
from trimtab.lm.head import Head
from trimtab.lm.packed import packed_layers
from trimtab.lm.sampling import logits_of
from trimtab.spec import Sampling


def compiled(model: Model, rows: list[int], length: int = 48) -> dict[str, Any]:
    """Milliseconds of a step behind `length` tokens, compiled and ours, and the seconds of compiling."""
    from transformers import StaticCache

    found = {}
    for n in rows:
        ids = torch.randint(3, 200, (n, length), generator=torch.Generator().manual_seed(0))
        last = ids[:, -1:]
        with packed_layers(model):
            ours = RowCache(model.n_layers, n, 2 * length)
            head = Head(model, n)
            model.hf.base_model(ids, past_key_values=ours)
            ours.advance(length)

            def step(last: Tensor = last, ours: RowCache = ours, head: Head = head) -> None:
                head(model.hf.base_model(last, past_key_values=ours).last_hidden_state[:, -1], None)

            mine = 1e3 * median_seconds(step)
        static = StaticCache(config=model.hf.config, max_cache_len=length + 1)
        model.hf.base_model(ids, past_key_values=static, position_ids=torch.arange(length)[None])

        def forward(last: Tensor, at: Tensor, static: StaticCache = static) -> Any:
            hidden = model.hf.base_model(last, past_key_values=static, position_ids=at).last_hidden_state[:, -1]
            logits = logits_of(model.hf.get_output_embeddings()(hidden))
            return logits.values, logits.peaks, logits.mass

        torch._dynamo.reset()
        quick = torch.compile(forward, dynamic=False, options={"freezing": True})

        def other(quick: Any = quick, last: Tensor = last, static: StaticCache = static) -> None:
            for layer in static.layers:
                layer.cumulative_length.fill_(length)
                if hasattr(layer, "cumulative_length_int"):  # a sliding layer counts twice
                    layer.cumulative_length_int = length
            quick(last, torch.tensor([[length]]))

        began = time.perf_counter()
        other()
        seconds = time.perf_counter() - began
        found[str(n)] = {"ours_ms": mine, "compiled_ms": 1e3 * median_seconds(other), "compile_seconds": seconds}
        print(n, found[str(n)], flush=True)
    return found


def prefix(model: Model, prompts: int = 12, samples: int = 8, common: int = 200, tokens: int = 60) -> dict[str, Any]:
    """Seconds of a run, of its prompts' passes, and of what these would be if their beginning were read once.

    The run is scaled from its first steps.
    """
    generator = torch.Generator().manual_seed(0)
    start = torch.randint(1000, 200_000, (common,), generator=generator).tolist()
    ends = torch.randint(1000, 200_000, (prompts, 10), generator=generator).tolist()

    def seconds(heads: list[list[int]], new: int, each: int) -> list[float]:
        rows = [Row(tuple(head), i, Sampling(max_new_tokens=new)) for head in heads for i in range(each)]
        times = [time.process_time()]
        decode(model, rows, batch_size=len(rows), progress=lambda _: times.append(time.process_time()))
        return [after - before for before, after in pairwise(times)]

    seconds([start], 2, 1)
    apart, *steps = seconds([[*start, *end] for end in ends], 5, samples)
    shared = seconds([start], 1, 1)[0] + seconds(ends, 1, 1)[0]
    return {
        "prompts": prompts, "samples": samples, "common": common, "tokens": tokens,
        "run_seconds": apart + (tokens - 1) * statistics.median(steps),
        "prompts_seconds": apart, "prompts_seconds_if_shared": shared,
    }  # fmt: skip


def main() -> None:
    """Measure, print, write the JSON; parts that are there already and not asked for are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=["formats", "compiled", "prefix"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = open_model(args.model)
    results: dict[str, Any] = {}
    if args.out and args.out.exists():
        results = json.loads(args.out.read_text(encoding="utf-8"))["results"]
    for name in args.only or ("formats", "compiled", "prefix"):
        part = {"formats": formats, "compiled": compiled}[name](model, args.rows) if name != "prefix" else prefix(model)
        results[name] = {"load": round(os.getloadavg()[0], 1), **part}
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            said = {"about": about(model), "results": results}
            args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
