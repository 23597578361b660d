"""Write the tables of docs/serve.md from the JSON of the benchmarks; the prose between them stays.

python bench/serve_page.py bench/results docs/serve.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from page import put
from tables import table

from trimtab.files import write_file


def load(said: dict[str, Any]) -> str:
    """One client and 32; the engine without a server; the same texts."""
    alone, together = said["alone"], said["together"]

    def row(name: str, rate: float, first: dict[str, float] | None, busy: str) -> list[str]:
        waited = [f"{first[part]:.2f} s" for part in ("p50", "p95")] if first else ["", ""]
        return [name, f"{rate:.1f}", *waited, busy]

    rows = [row("one client at a time", alone["tokens_per_second"], alone["first"], "")]
    for i, one in enumerate(together, 1):
        name = f"{said['clients']} clients at once, round {i}"
        rows.append(row(name, one["tokens_per_second"], one["first"], f"{one['load']:.1f}"))
    rows.append(row("the same rows in one batch, without a server", median(said["engine_tokens_per_second"]), None, ""))
    lost = sum(len(one["lost"]) for one in together)
    same, sent = sum(one["same"] for one in together), said["clients"] * len(together)
    text = (
        f"{said['model']} on {said['cores']} cores ({said['processor']}), {said['threads']} threads, "
        f"{said['new_tokens']} tokens a text, streamed; every client with its own prompt, recipe and seed.\n\n"
    )
    text += table(["", "tokens per second", "first token, median", "95th percentile", "load of the machine"], rows)
    return text + (
        f"\n\n{said['clients']} clients get {said['ratio']:.1f} times the tokens per second of one (median of the "
        f"rounds). Requests lost: {lost}. Texts equal to those got alone: {same} of {sent}."
    )


def soak(said: dict[str, Any]) -> str:
    """What was done, what went wrong, and memory."""
    memory = said["flat"]
    rows = [[name, f"{count:,}"] for name, count in said["done"].items()]
    curve = [f"{megabytes} MB" for _, number, megabytes in said["memory"] if number == said["memory"][-1][1]]
    points = ", ".join(curve[:: max(1, len(curve) // 8)])
    return (
        f"{said['model']}, {said['threads']} thread, {said['seconds'] / 60:.1f} minutes, {said['clients']} clients, "
        f"{said['requests']:,} requests, {said['restarts']} restarts, load {said['load']:.1f} at the end.\n\n"
        + table(["what clients did, or were told", "times"], rows)
        + f"\n\nFaults: {len(said['faults'])}. Memory of the last server: {memory['early']:.0f} MB after a fifth of "
        f"its time, {memory['late']:.0f} MB in the last fifth ({points})."
    )


def fuzz(said: dict[str, Any]) -> str:
    """Statuses by kind of body."""
    statuses = sorted({status for counts in said["statuses"].values() for status in counts})
    rows = [[kind, *(f"{counts.get(one, 0):,}" for one in statuses)] for kind, counts in said["statuses"].items()]
    return table(["bodies that ...", *statuses], rows) + (
        f"\n\n{said['bodies']:,} bodies to {said['routes']} routes: {len(said['wrong'])} answers that were a 5xx or "
        "not documented."
    )


PARTS = {"serve_load": load, "serve_soak": soak, "serve_soak_planted": soak, "serve_fuzz": fuzz}


def main() -> None:
    """Put every table whose JSON is there between its two marks."""
    folder, page = map(Path, sys.argv[1:3])
    text = page.read_text(encoding="utf-8")
    for name, render in PARTS.items():
        file = folder / f"{name}.json"
        if file.exists():
            said = json.loads(file.read_text(encoding="utf-8"))
            text = put(text, name, render(said), by="bench/serve_page.py")
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
