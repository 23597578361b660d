"""The engine against transformers' own `generate`, side by side in one process.

    python bench/engine.py [--model gemma-3-270m] [--rows 1 8 32 128] [--tokens 12] [--rounds 3] [--out engine.json]

Each round times, for every number of rows, one after another: transformers `generate` with a hook that adds a vector
(full vocabulary, temperature 1), and ours unsteered, with the same vector added to every row (a recipe of its own
for each row), and with 8 latents clamped. Every row has another prompt and runs to its full length. The rates are
tokens per second with the prompts' pass included; the ratios are taken within a round, and their medians are reported.
`--clock cpu` counts processor seconds instead, for a machine that others use too (with one thread).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trimtab import SAE, Model, Recipe, Site, open_model
from trimtab.lm.decode import Row, decode
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling

PROMPT = "Once upon a time, in house number {} by the river, there lived"


def ours(model: Model, recipes: list[Recipe | None], tokens: int) -> None:
    """Our engine, without stopping at end tokens."""
    sampling = Sampling(max_new_tokens=tokens)
    rows = [
        Row(tuple(model.encode(PROMPT.format(i))), stream_key(0, PROMPT, i), sampling, recipe)
        for i, recipe in enumerate(recipes)
    ]
    decode(model, rows, batch_size=len(rows))


def transformers_hooked(model: Model, rows: int, tokens: int, layer: int, vector: torch.Tensor) -> None:
    """Plain `generate` of transformers with the hook that tutorials use."""

    def add(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    vector = vector.to(model.dtype)
    ids, mask = model.pad([model.encode(PROMPT.format(i)) for i in range(rows)])
    handle = model.blocks[layer].register_forward_hook(add)
    try:
        model.hf.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=model.pad_id,
        )
    finally:
        handle.remove()


def random_sae(model: Model, layer: int) -> SAE:
    """A JumpReLU SAE of 4,096 random features: what they mean does not matter for what they cost."""
    features, generator = 4096, torch.Generator().manual_seed(1)
    decoder = torch.randn(features, model.d_model, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    return SAE(
        name="random",
        architecture="jumprelu",
        site=Site(layer=layer),
        model_name=None,
        W_enc=decoder.T.contiguous(),
        b_enc=torch.zeros(features),
        W_dec=decoder,
        b_dec=torch.zeros(model.d_model),
        threshold=torch.full((features,), 0.1),
    )


def clamp_of(model: Model, layer: int, count: int) -> list[Recipe | None]:
    """For each row, 8 latents of a random SAE of 4,096 features clamped, other ones on every row."""
    sae = random_sae(model, layer)
    return [Recipe.clamp(sae, {8 * row % 4000 + i: 0.5 for i in range(8)}, unit="raw") for row in range(count)]


def measure(model: Model, rows: int, tokens: int, rounds: int, sae: bool, clock: Callable[[], float]) -> dict[str, Any]:
    """Rates of every contestant per round, and medians of the ratios."""
    layer = model.n_layers // 2
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    added: list[Recipe | None] = [Recipe.vector(vector, layer, 1 + row / 1000) for row in range(rows)]
    contestants: dict[str, Callable[[], None]] = {
        "transformers_add": lambda: transformers_hooked(model, rows, tokens, layer, vector),
        "ours_plain": lambda: ours(model, [None] * rows, tokens),
        "ours_add": lambda: ours(model, added, tokens),
    }
    if sae:
        clamped = clamp_of(model, layer, rows)
        contestants["ours_clamp_8"] = lambda: ours(model, clamped, tokens)
    ours(model, [None] * rows, 2)
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds):
        for name in sorted(contestants, reverse=bool(turn % 2)):
            began = clock()
            contestants[name]()
            rates[name].append(rows * tokens / (clock() - began))
    ratio = {
        f"{name}/{base}": statistics.median(a / b for a, b in zip(rates[name], rates[base], strict=True))
        for name, base in (("ours_add", "transformers_add"), ("ours_add", "ours_plain"), ("ours_clamp_8", "ours_plain"))
        if name in rates
    }
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {"rows": rows, "tokens": tokens, "tokens_per_second": medians, "ratios": ratio, "rounds": rates}


def main() -> None:
    """Parse, measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-clamp", action="store_true")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = open_model(args.model, dtype=args.dtype)
    results = []
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    print(f"{'rows':>5} {'transformers':>13} {'ours':>9} {'ours add':>9} {'ratio':>6}   add, clamp against plain")
    for rows in args.rows:
        one = measure(model, rows, args.tokens, args.rounds, not args.no_clamp, clock)
        results.append(one)
        rate, ratio = one["tokens_per_second"], one["ratios"]
        print(
            f"{rows:>5} {rate['transformers_add']:>13.1f} {rate['ours_plain']:>9.1f} {rate['ours_add']:>9.1f} "
            f"{ratio['ours_add/transformers_add']:>6.2f}   {ratio['ours_add/ours_plain']:.3f}, "
            f"{ratio.get('ours_clamp_8/ours_plain', float('nan')):.3f}",
            flush=True,
        )
    about = {
        "model": model.name,
        "dtype": str(model.dtype),
        "clock": args.clock,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "load": os.getloadavg()[0],
    }
    if args.out:
        args.out.write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
