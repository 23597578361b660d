"""32 clients at once on one server: are the texts those that each gets alone, how many tokens a second, how long till
the first token?

    python bench/serve_load.py [--out bench/results/serve_load.json] [--tokens 64] [--rounds 3]
    python bench/serve_load.py --url http://127.0.0.1:8000 --model NAME --features 1 2 3   a server that runs already

Starts `trimtab serve` on loopback. Every client has its own recipe, seed and prompt. First each is served alone, one
after the other (the reference, and the rate with one client), then all at once, `--rounds` times. At the end the same
rows go through the engine without any server, in a process of its own: what the server costs. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from serving import server

CLIENTS = 32
PROMPTS = (
    "The best thing about the weekend is that", "My day at work began with", "Last night I dreamt that we",
    "The report about the harbour says that", "She opened the door of the old house and",
    "In the morning they went down to the", "The first rule of cooking is to", "Everyone in the village knows that",
)  # fmt: skip
FEATURES = (11330, 6024, 10935, 100, 2000, 5000, 8000, 14000, 16000, 300)


class Told(NamedTuple):
    """What one client got."""

    text: str
    tokens: int
    first: float  # seconds till the first piece of text
    seconds: float


def request(number: int, model: str, features: tuple[int, ...], tokens: int) -> dict[str, Any]:
    """What client `number` asks for."""
    one = {"feature": features[number % len(features)], "strength": round(0.2 + number / 100, 2)}
    edits: tuple[dict[str, Any], ...] = (
        {"features": [one]},
        {"features": [one], "edit": "clamp"},
        {"features": [one], "scope": {"prompt": False}},
        {"features": [one, {"feature": features[(number + 3) % len(features)], "strength": -0.2}]},
    )
    return {
        "model": model, "prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": tokens, "seed": 100 + number,
        "stream": True, "stream_options": {"include_usage": True}, "steering": edits[number % len(edits)],
    }  # fmt: skip


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Told:
    """One request, streamed."""
    began = time.perf_counter()
    first, pieces, tokens = 0.0, [], 0
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            for choice in chunk["choices"]:
                first = first or time.perf_counter() - began
                pieces.append(choice["text"])
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
    return Told("".join(pieces), tokens, first, time.perf_counter() - began)


async def measure(url: str, bodies: list[dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Alone, then together."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        await ask(client, bodies[0])
        began = time.perf_counter()
        alone = [await ask(client, body) for body in bodies]
        seconds = time.perf_counter() - began
        rate = sum(one.tokens for one in alone) / seconds
        print(f"one client: {rate:.1f} tokens/s", flush=True)
        together = []
        for _ in range(rounds):
            began = time.perf_counter()
            got = await asyncio.gather(*(ask(client, body) for body in bodies), return_exceptions=True)
            together.append(_round(alone, got, time.perf_counter() - began, rate))
            print(json.dumps({k: v for k, v in together[-1].items() if k != "different"}), flush=True)
    best = statistics.median(one["ratio"] for one in together)
    return {
        "clients": len(bodies),
        "alone": {
            "tokens_per_second": rate, "seconds": seconds, "tokens": sum(one.tokens for one in alone),
            "first": spread([one.first for one in alone]),
        },
        "together": together, "ratio": best,
    }  # fmt: skip


def _round(alone: list[Told], got: list[Told | BaseException], seconds: float, rate: float) -> dict[str, Any]:
    served = [one for one in got if isinstance(one, Told)]
    different = [
        {"client": i, "same_characters": common(a.text, b.text), "of": len(a.text)}
        for i, (a, b) in enumerate(zip(alone, got, strict=True))
        if isinstance(b, Told) and a.text != b.text
    ]
    tokens = sum(one.tokens for one in served)
    return {
        "lost": [f"{type(one).__name__}: {one}" for one in got if not isinstance(one, Told)],
        "same": len(served) - len(different), "different": different, "tokens": tokens, "seconds": seconds,
        "tokens_per_second": tokens / seconds, "ratio": tokens / seconds / rate,
        "first": spread([one.first for one in served]), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def common(a: str, b: str) -> int:
    """How many characters are the same at the beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def spread(values: list[float]) -> dict[str, float]:
    """Median and 95th percentile, in seconds."""
    ordered = sorted(values)
    return {"p50": statistics.median(ordered), "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]}


def without_server(bodies: list[dict[str, Any]], rounds: int) -> list[float]:
    """Tokens a second of the same rows in one batch of the engine."""
    from trimtab import open_model, open_sae
    from trimtab.lm.decode import decode
    from trimtab.serve.steering import Steering, of_features
    from trimtab.spec import Sampling
    from trimtab.steer.generate import plan

    model = open_model(bodies[0]["model"])
    saes = {"": open_sae(bodies[0]["model"])}
    rows = []
    for body in bodies:
        recipe = of_features(Steering.parse(body["steering"]), saes)
        sampling = Sampling(max_new_tokens=body["max_tokens"])
        rows += [row for *_, row in plan(model, [body["prompt"]], [recipe], 1, sampling, body["seed"])]
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        written = decode(model, rows, batch_size=len(rows), stops=model.eos_ids)
        rates.append(sum(len(one.tokens) for one in written) / (time.perf_counter() - began))
    return rates


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/serve_load.json"))
    parser.add_argument("--url")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--features", type=int, nargs="+", default=list(FEATURES))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bodies = [request(i, args.model, tuple(args.features), args.tokens) for i in range(CLIENTS)]
    if args.engine_only:
        print(json.dumps(without_server(bodies, args.rounds)))
        return
    if args.url:
        print(json.dumps(asyncio.run(measure(args.url, bodies, args.rounds))["ratio"]))
        return
    with server("--model", args.model) as running:
        result = asyncio.run(measure(running.url, bodies, args.rounds))
    again = [sys.executable, __file__, "--engine-only", "--tokens", str(args.tokens), "--rounds", str(args.rounds)]
    result["engine_tokens_per_second"] = json.loads(subprocess.run(again, capture_output=True, check=True).stdout)
    from machine import processor

    result |= {
        "model": args.model, "threads": os.environ.get("OMP_NUM_THREADS"), "cores": os.cpu_count(),
        "processor": processor(), "new_tokens": args.tokens,
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(args.out)


if __name__ == "__main__":
    main()
