"""How time and memory grow with rows, tokens, recipes and clamped latents: each point in a process of its own.

python bench/curves.py [--model gemma-3-270m] [--out curves.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import contestants as who
import torch
from machine import about, peak_megabytes

from trimtab import Recipe, open_model
from trimtab.lm.decode import Row, decode
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling
from trimtab.steer.grid import SweepSpec
from trimtab.steer.sweep import sweep
from trimtab.testing.models import tiny_model

BATCH = 128
POINTS: dict[str, list[dict[str, int]]] = {
    "rows": [{"rows": rows, "tokens": 8} for rows in (128, 256, 512, 1024)],
    "tokens": [{"rows": 32, "tokens": tokens} for tokens in (16, 32, 64, 128, 256)],
    "recipes": [{"rows": 128, "tokens": 16, "recipes": recipes} for recipes in (1, 8, 32, 128)],
    "latents": [{"rows": 128, "tokens": 16, "recipes": 128, "latents": latents} for latents in (1, 8, 32)],
}


def point(name: str, rows: int, tokens: int, recipes: int = 1, latents: int = 0) -> dict[str, Any]:
    """One run on a real model: `recipes` different ones over the rows, additions or clamps of `latents` latents."""
    model = open_model(name)
    sae = who.random_sae(model, model.n_layers // 2)
    if latents:
        made = who.clamp_of(sae, recipes, latents)
    else:
        made = [Recipe.add(sae, {i: 1.0}, unit="raw") for i in range(recipes)]
    sampling = Sampling(max_new_tokens=tokens)
    prompt = tuple(model.encode(who.PROMPT.format(1)))
    todo = [Row(prompt, stream_key(0, "", i), sampling, made[i % recipes]) for i in range(rows)]
    decode(model, [Row(prompt, 0, Sampling(max_new_tokens=2))] * min(rows, BATCH), batch_size=BATCH)
    before = peak_megabytes()
    began = time.perf_counter()
    decode(model, todo, batch_size=BATCH)
    seconds = time.perf_counter() - began
    return {
        "rows": rows, "tokens": tokens, "recipes": recipes, "latents": latents, "seconds": seconds,
        "tokens_per_second": rows * tokens / seconds, "peak_megabytes": peak_megabytes(), "load": os.getloadavg()[0],
        "grown_megabytes": peak_megabytes() - before,
    }  # fmt: skip


def long_sweep(rows: int, tokens: int) -> dict[str, Any]:
    """A long sweep of a tiny random model: what is kept for each row must not add up. Memory after each tenth."""
    model = tiny_model("gemma3_text", d_model=16, n_layers=2)
    sae = who.random_sae(model, 1)
    spec = SweepSpec(
        prompts=("Once upon a time",),
        features=tuple(range(rows // 20)),
        strengths=(1.0, 2.0),
        unit="raw",
        seeds=tuple(range(10)),
        sampling=Sampling(max_new_tokens=tokens),
    )
    memory: list[tuple[int, float]] = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:

        def watch(now: Any) -> None:
            if now.done >= len(memory) * rows // 10:
                memory.append((now.done, peak_megabytes()))

        sweep(model, sae, spec, folder, progress=watch)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
    return {
        "rows": spec.n_rows, "tokens": tokens, "seconds": time.perf_counter() - began, "peak_megabytes": memory,
        "folder_megabytes": size,
    }  # fmt: skip


def apart(function: Any, *arguments: Any, **named: Any) -> Any:
    """A call in a new process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments, named)


def main() -> None:
    """Measure all points, print them, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=[*POINTS, "sweep"], default=[*POINTS, "sweep"])
    parser.add_argument("--out", type=Path, help="curves that are there already and not asked for are kept")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    results: dict[str, Any] = {}
    if args.out and args.out.exists():
        results = json.loads(args.out.read_text(encoding="utf-8"))["results"]
    for curve in args.only:
        if curve == "sweep":
            results[curve] = apart(long_sweep, 10_000, 60)
            print(curve, results[curve], flush=True)
            continue
        results[curve] = []
        for one in POINTS[curve]:
            results[curve].append(apart(point, args.model, **one))
            print(curve, {key: round(value, 2) for key, value in results[curve][-1].items()}, flush=True)
    if args.out:
        said = {"about": about(open_model(args.model)), "results": results}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
