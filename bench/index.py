"""How fast and how small building an index is: against the bare forward pass, and against keeping every firing.

    python bench/index.py TEXTS --model NAME --sae NAME --tokens 100000

Each way runs in a process of its own over the same contexts and batches. Times are processor seconds (so that other
work on the machine does not count), memory is the largest resident size of the process.

bare    the model's blocks up to the SAE's site, nothing else
ours    trimtab.index.build, with everything that it stores
keep    the straightforward way: every activation of every token is kept, then sorted for each feature
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter

WAYS = ("bare", "ours", "keep")


def main() -> None:
    """Run every way and print a table."""
    parser = argparse.ArgumentParser(description="Measure how fast and how small building an index is.")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--sae", default="gemma-3-270m")
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given)))
        return
    rows = {}
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--way", way], stdout=subprocess.PIPE, check=True
        )
        rows[way] = json.loads(done.stdout)
        row = rows[way]
        share = (row["tokens"] / row["seconds"]) / (rows["bare"]["tokens"] / rows["bare"]["seconds"])
        print(
            f"{way:<5} {row['tokens']:>9,} tokens  {row['tokens'] / row['seconds']:>9,.0f} tokens/s  "
            f"{share:>5.2f} of bare  {row['megabytes']:>7,.0f} MB",
            flush=True,
        )


def measure(given: argparse.Namespace) -> dict[str, float]:
    """One way, in this process: tokens, processor seconds after everything is loaded, peak memory."""
    from trimtab.index.build import IndexSpec, _windows
    from trimtab.lm.load import open_model
    from trimtab.lm.residual import read
    from trimtab.sae.load import open_sae

    model, sae = open_model(given.model), open_sae(given.sae)
    read(model, _ids(model), [sae.site])  # the first pass lays things out
    spec = IndexSpec(tokens=given.tokens, window=max(1, min(256, given.tokens // 500)))
    started = time.process_time()
    if given.way == "ours":
        from trimtab.index.build import build

        with tempfile.TemporaryDirectory() as folder:
            tokens = build(model, sae, given.texts, folder, spec).tokens
    else:
        tokens, kept = 0, Kept()
        for window in _windows(model, given.texts, spec, skip=0):
            tokens += _window(model, sae, window, kept if given.way == "keep" else None)
            if tokens >= given.tokens:
                break
        kept.finish(sae.d_sae)
    return {
        "tokens": tokens,
        "seconds": time.process_time() - started,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


class Kept:
    """Every firing as (context, position, token, activation), feature by feature; then the same results as an index."""

    def __init__(self) -> None:
        self.firings: dict[int, list[tuple[int, int, int, float]]] = {}
        self.contexts: list[tuple[int, ...]] = []

    def add(self, context: tuple[int, ...], f) -> None:  # type: ignore[no-untyped-def]
        """The activations f [seq, d_sae] of one context."""
        number = len(self.contexts)
        self.contexts.append(context)
        where = (f > 0).nonzero().tolist()
        for position, feature in where:
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


def _window(model, sae, window, kept: Kept | None) -> int:  # type: ignore[no-untyped-def]
    from trimtab.index.events import TOKENS_PER_BATCH
    from trimtab.lm.residual import read
    from trimtab.lm.texts import batches

    tokens = 0
    for rows, ids, mask in batches(window, tokens=TOKENS_PER_BATCH):
        h = read(model, ids, [sae.site], attention_mask=mask)[sae.site]
        tokens += int(mask.sum()) - (len(rows) if model.bos_id is not None else 0)
        if kept is not None:
            for row, index in enumerate(rows):
                context = window[index].ids
                f = sae.encode(h[row, : len(context)].float())
                if model.bos_id is not None:
                    f[0] = 0
                kept.add(context, f)
    return tokens


def _ids(model):  # type: ignore[no-untyped-def]
    import torch

    return torch.tensor([model.encode("A short text.")])


if __name__ == "__main__":
    main()
