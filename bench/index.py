"""How fast and how small building an index is: against the bare forward pass, and against keeping every firing.

    python bench/index.py TEXTS --out bench/results/index.json           speed, a minute or two
    python bench/index.py TEXTS --memory 100000 1000000 --out bench/results/index-memory.json

Speed is measured in one process, in turns over the same contexts and batches, after a short turn that does not count:

bare      the model's blocks up to the SAE's site as torch runs them, nothing else
packed    the same with weights laid out for oneDNN, as the index runs them
limit     packed, and one bfloat16 product with the encoder's weights whose result nobody looks at
ours      trimtab.index.build up to its last window; what it takes to write the tables, once, is told apart
keep      the straightforward way: every activation of every token is kept, then sorted for each feature

Times are processor seconds, so that other work on the machine does not count; with one thread they are also what a
clock shows on a machine that does nothing else. Memory is the largest resident size of a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import about, peak_megabytes

from trimtab.index import build as building
from trimtab.index.build import IndexSpec, _windows, build
from trimtab.index.events import TOKENS_PER_BATCH
from trimtab.lm.load import open_model
from trimtab.lm.model import Model
from trimtab.lm.packed import packed_layers
from trimtab.lm.residual import read
from trimtab.lm.texts import batches
from trimtab.sae import firing
from trimtab.sae.load import open_sae
from trimtab.sae.sae import SAE

Use = Callable[[SAE, list[tuple[int, ...]], torch.Tensor, bool], None]

WAYS = ("bare", "packed", "limit", "ours", "keep")


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description="Measure how fast and how small building an index is.")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sae", default="gemma-3-270m")
    parser.add_argument("--tokens", type=int, default=65_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--memory", type=int, nargs="+", default=[], help="measure memory at these numbers of tokens")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "--write-tokens", type=Path, help="write 64 contexts of 128 tokens for other programs, and stop"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.peak:
        print(json.dumps(peak(given)))
        return
    if given.write_tokens:
        write_tokens(given)
        return
    said = [memory(given, tokens) for tokens in given.memory] or [speed(given, dtype) for dtype in given.dtypes]
    if given.out:
        given.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def speed(given: argparse.Namespace, dtype: str) -> dict[str, Any]:
    """Every way in turn."""
    model, sae = open_model(given.model, dtype=dtype), open_sae(given.sae)
    spec = IndexSpec(tokens=given.tokens)
    ways = [way for way in given.ways if way != "keep" or dtype == "float32"]
    rounds: dict[str, list[float]] = {way: [] for way in ways}
    tables = tokens = 0.0
    for turn in range(given.rounds + 1):
        for way in ways if turn < 2 else [way for way in ways if way != "keep"]:  # which is slow and far behind
            small = spec.model_copy(update={"tokens": 500, "window": 8}) if turn == 0 else spec
            started = time.process_time()
            tokens, after = run(way, model, sae, given.texts, small)
            if turn:
                rounds[way].append(time.process_time() - started - after)
                tables = max(tables, after)
    best = {way: tokens / min(times) for way, times in rounds.items()}
    said = {
        "about": about(model),
        "tokens": tokens,
        "tokens_per_second": best,
        "tables_seconds": tables,
        "rounds": rounds,
    }
    print(dtype, {way: f"{rate:,.0f}/s, {best['ours'] / rate:.2f}" for way, rate in best.items()}, f"{tables:.1f} s")
    return said


def run(way: str, model: Model, sae: SAE, texts: list[str], spec: IndexSpec) -> tuple[int, float]:
    """(tokens that were kept or read, seconds spent on writing tables)."""
    if way == "ours":
        return ours(model, sae, texts, spec)
    tokens, kept = 0, Kept()
    use = {"keep": kept.add, "limit": encoder_product(sae)}.get(way)
    for window in _windows(model, texts, spec, skip=0):
        with packed_layers(model) if way in ("packed", "limit") else nullcontext():
            tokens += _window(model, sae, window, use)
        if spec.tokens and tokens >= spec.tokens:
            break
    if way == "keep":
        kept.finish(sae.d_sae)
    return tokens, 0.0


def ours(model: Model, sae: SAE, texts: list[str], spec: IndexSpec) -> tuple[int, float]:
    """A build, and how much of it was writing tables."""
    seconds, finish = [], building._finish

    def timed(*args: Any) -> None:
        started = time.process_time()
        finish(*args)
        seconds.append(time.process_time() - started)

    building._finish = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            return build(model, sae, texts, folder, spec).tokens, seconds[0]
    finally:
        building._finish = finish


def memory(given: argparse.Namespace, tokens: int) -> dict[str, Any]:
    """The peak of a build in a process of its own."""
    command = [sys.executable, __file__, *given.texts, "--model", given.model, "--sae", given.sae]
    command += ["--threads", str(given.threads), "--dtypes", given.dtypes[0], "--peak", str(tokens)]
    said = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    print(said, flush=True)
    return dict(said)


def peak(given: argparse.Namespace) -> dict[str, Any]:
    """Tokens, seconds and megabytes of one build."""
    model, sae = open_model(given.model, dtype=given.dtypes[0]), open_sae(given.sae)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tokens = build(model, sae, given.texts, folder, IndexSpec(tokens=given.peak)).tokens
    return {"tokens": tokens, "seconds": time.monotonic() - started, "megabytes": peak_megabytes()}


def write_tokens(given: argparse.Namespace) -> None:
    """64 full contexts as an array."""
    model = open_model(given.model)
    windows = _windows(model, given.texts, IndexSpec(), skip=0)
    full = (context.ids for window in windows for context in window if len(context.ids) == 128)
    np.save(given.write_tokens, np.array([ids for ids, _ in zip(full, range(64), strict=False)]))


class Kept:
    """Every firing as (context, position, token, activation), feature by feature; then the same results as an index."""

    def __init__(self) -> None:
        self.firings: dict[int, list[tuple[int, int, int, float]]] = {}
        self.contexts: list[tuple[int, ...]] = []

    def add(self, sae: SAE, contexts: list[tuple[int, ...]], h: torch.Tensor, bos: bool) -> None:
        """A batch of contexts with their residuals h [rows, seq, d]."""
        for row, context in zip(h, contexts, strict=True):
            f = sae.encode(row[: len(context)].float())
            f[: int(bos)] = 0
            number = len(self.contexts)
            self.contexts.append(context)
            for position, feature in (f > 0).nonzero().tolist():
                value = float(f[position, feature])
                self.firings.setdefault(feature, []).append((number, position, context[position], value))

    def finish(self, features: int) -> dict[int, object]:
        """Top examples, count, mean, maximum and commonest tokens of each feature."""
        result: dict[int, object] = {}
        for feature in range(features):
            found = sorted(self.firings.get(feature, []), key=lambda one: -one[3])
            words = Counter(token for _, _, token, _ in found).most_common(20)
            examples = [self.contexts[number][max(0, at - 24) : at + 9] for number, at, _, _ in found[:20]]
            total = sum(value for *_, value in found)
            result[feature] = (len(found), total / max(1, len(found)), found[:1], words, examples)
        return result


def encoder_product(sae: SAE) -> Use:
    """The residuals of a batch times the encoder's weights, in bfloat16, as fast as that can be done here."""
    product = firing._product(sae.W_enc.T.contiguous().bfloat16())

    def use(_sae: SAE, contexts: list[tuple[int, ...]], h: torch.Tensor, bos: bool) -> None:
        rows = torch.cat([row[int(bos) : len(context)] for row, context in zip(h, contexts, strict=True)]).bfloat16()
        for part in rows.split(firing._ROWS):
            product(part)

    return use


@torch.no_grad()
def _window(model: Model, sae: SAE, window: list[Any], use: Use | None) -> int:
    """Read a window batch by batch, and let `use` do something with each; the number of tokens without BOS."""
    tokens, bos = 0, model.bos_id is not None
    for rows, ids, mask in batches(window, tokens=TOKENS_PER_BATCH):
        h = read(model, ids, [sae.site], attention_mask=mask)[sae.site]
        tokens += int(mask.sum()) - bos * len(rows)
        if use is not None:
            use(sae, [window[index].ids for index in rows], h, bos)
    return tokens


if __name__ == "__main__":
    main()
