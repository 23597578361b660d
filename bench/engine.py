"""The engine beside transformers, TransformerLens, llama.cpp and the bare matrix products, in one process.

    python bench/engine.py [--rows 1 8 32 128] [--tokens 24] [--rounds 3] [--gguf FILE] [--out engine.json]

Each round times every contestant once, in turns that change their order; the ratios are taken within a round, and
medians are reported. Rates are tokens per second, the prompts' pass included. Every row has another prompt, another
recipe and its full length; temperature 1, the whole vocabulary. TransformerLens writes one prompt at a time, so it is
measured with one row only, and its rate is used for all numbers of rows.
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

import contestants as who
import torch
from machine import about

from trimtab import Recipe, open_model
from trimtab.lm.model import Model

_MOST_SLOTS = 256  # sequences of one context of llama.cpp

RATIOS = (
    ("ours_add", "transformers_add"),
    ("ours_plain_steps", "products"),
    ("ours_plain_steps", "packed_products"),
    ("ours_add", "ours_plain"),
    ("ours_add_steps", "ours_plain_steps"),
    ("ours_clamp_8", "ours_plain"),
    ("ours_clamp_8_steps", "ours_plain_steps"),
    ("ours_bfloat16_add", "ours_add"),
    ("ours_add", "llama_cpp_add"),
    ("ours_bfloat16_add", "llama_cpp_add"),
    ("ours_add", "tutorial"),
)


def entrants(model: Model, half: Model | None, lens: Any, args: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Everybody who runs with so many rows, by name."""
    layer = model.n_layers // 2
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    added: list[Recipe | None] = [Recipe.vector(vector, layer, 1 + row / 1000) for row in range(rows)]
    clamped = who.clamp_of(who.random_sae(model, layer), rows)
    products, packed = (who.bare_products(model, rows, one) for one in (False, True))
    found: dict[str, Callable[[int], Any]] = {
        "transformers_add": lambda tokens: who.transformers_hooked(model, rows, tokens, layer, vector),
        "ours_plain": lambda tokens: who.ours(model, [None] * rows, tokens),
        "ours_add": lambda tokens: who.ours(model, added, tokens),
        "ours_clamp_8": lambda tokens: who.ours(model, clamped, tokens),
        "products": products,
        "packed_products": packed,
    }
    if half is not None:
        found["ours_bfloat16_add"] = lambda tokens: who.ours(half, added, tokens)
    if lens is not None and rows == 1:
        found["tutorial"] = lambda tokens: lens(1, tokens)
    if args.gguf is not None and rows <= _MOST_SLOTS:
        from llamacpp import Llama

        prompts = [model.encode(who.PROMPT.format(row)) for row in range(rows)]
        llama = Llama(args.gguf, rows, max(map(len, prompts)) + args.tokens, torch.get_num_threads())
        found["llama_cpp"] = lambda tokens: llama.write(prompts, tokens)
        steered = Llama(args.gguf, rows, max(map(len, prompts)) + args.tokens, torch.get_num_threads())
        steered.steer(vector.tolist(), layer, model.n_layers)
        found["llama_cpp_add"] = lambda tokens: steered.write(prompts, tokens)
    return found


def measure(found: dict[str, Callable[[int], Any]], rows: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Rates of everybody per round, medians of the rates and of the ratios within a round."""
    rates: dict[str, list[float]] = {name: [] for name in found}
    loads = []
    for warm_up in found.values():
        warm_up(2)
    for turn in range(rounds):
        loads.append(round(os.getloadavg()[0], 2))
        for name in sorted(found, reverse=bool(turn % 2)):
            began = time.perf_counter()
            steps = found[name](tokens)
            rates[name].append(rows * tokens / (time.perf_counter() - began))
            if isinstance(steps, float):
                rates.setdefault(f"{name}_steps", []).append(steps)
    ratios = {
        f"{name}/{base}": statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))
        for name, base in RATIOS
        if name in rates and base in rates
    }
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "rows": rows, "tokens": tokens, "tokens_per_second": medians, "ratios": ratios, "rounds": rates, "load": loads,
    }  # fmt: skip


def show(one: dict[str, Any]) -> None:
    """A few lines for people."""
    print(f"\n{one['rows']} rows, load {one['load']}")
    for name, rate in sorted(one["tokens_per_second"].items(), key=lambda item: item[1]):
        print(f"  {name:<20} {rate:8.1f} tokens/s")
    print("  " + ", ".join(f"{name} {ratio:.3f}" for name, ratio in one["ratios"].items()), flush=True)


def main() -> None:
    """Parse, measure, print, write the JSON after every number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gguf", type=Path, help="the same model for llama.cpp; needs the package xllamacpp")
    parser.add_argument("--no-bfloat16", action="store_true")
    parser.add_argument("--no-tutorial", action="store_true", help="without TransformerLens")
    parser.add_argument("--out", type=Path, help="numbers of rows that are there already and not asked for are kept")
    parser.add_argument("--only", nargs="+", help="these contestants only, such as ours_plain ours_add ours_clamp_8")
    args = parser.parse_args()
    model = open_model(args.model)
    half = None if args.no_bfloat16 else open_model(args.model, dtype="bfloat16")
    lens = None
    if not args.no_tutorial and 1 in args.rows:
        vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
        lens = who.tutorial(open_model(args.model), model.n_layers // 2, vector)
    results: list[dict[str, Any]] = []
    for rows in args.rows:
        everybody = entrants(model, half, lens, args, rows)
        chosen = {name: one for name, one in everybody.items() if not args.only or name in args.only}
        rounds = args.rounds + 2 if rows < 32 else args.rounds
        results.append(measure(chosen, rows, args.tokens, rounds))
        show(results[-1])
        if args.out:
            before = json.loads(args.out.read_text(encoding="utf-8"))["results"] if args.out.exists() else []
            kept = [one for one in before if one["rows"] not in args.rows]
            said = {"about": about(model), "results": sorted(kept + results, key=lambda one: one["rows"])}
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
