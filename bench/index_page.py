"""Write the tables of docs/index.md from the JSON of the benchmarks; the prose between them stays.

python bench/index_page.py bench/results docs/index.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from page import put
from tables import _machine, table

from trimtab.files import write_file

NAMES = {
    "bare": "the bare forward pass, as torch runs it",
    "packed": "the same with packed weights",
    "limit": "the same and one bfloat16 product with the encoder",
    "ours": "`trimtab index build`",
    "keep": "every firing kept in lists, then sorted",
}


def speed(results: list[dict[str, Any]], dashboard: dict[str, Any] | None) -> str:
    """Rates and shares; SAEDashboard beside them, scaled to all features."""
    rows = []
    for one in results:
        rates = one["tokens_per_second"]
        for way, rate in rates.items():
            rows.append([f"{one['about']['dtype']}: {NAMES[way]}", f"{rate:,.0f}", f"{rates['ours'] / rate:.2f}"])
    if dashboard is not None:
        rate, ours = dashboard["tokens"] / dashboard["seconds_scaled"], results[0]["tokens_per_second"]["ours"]
        rows.append(["float32: SAEDashboard 0.8.0, scaled to all features", f"{rate:,.1f}", f"{ours / rate:,.0f}"])
    text = _machine(results[0]["about"]) + f" {results[0]['tokens']:,} tokens, processor seconds.\n\n"
    text += table(["", "tokens per second", "`index build` against it"], rows)
    seconds = max(one["tables_seconds"] for one in results)
    return text + f"\n\nWriting the tables once at the end took {seconds:.1f} s, which is not in the rates."


def memory(results: list[dict[str, Any]]) -> str:
    """Peaks by number of tokens."""
    rows = [[f"{one['tokens']:,}", f"{one['seconds']:,.0f}", f"{one['megabytes']:,.0f}"] for one in results]
    share = results[-1]["megabytes"] / results[0]["megabytes"] - 1
    return table(["tokens", "seconds", "peak MB"], rows) + f"\n\nThe last peak is {share:+.1%} of the first."


def main() -> None:
    """Put every table between its two marks."""
    folder, page = map(Path, sys.argv[1:3])

    def load(name: str) -> Any:
        path = folder / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    text = page.read_text(encoding="utf-8")
    found, peaks = load("index"), load("index-memory")
    parts = {
        "index": found and speed(found, load("sae-dashboard")),
        "index-memory": peaks and memory(peaks),
    }
    for name, inside in parts.items():
        if not inside:
            continue
        text = put(text, name, inside, by="bench/index_page.py")
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
