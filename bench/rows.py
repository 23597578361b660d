"""10,000 rows on the real model: memory over time, two kills on the way, and whether single rows come out the same.

    python bench/rows.py run FOLDER          writes FOLDER and FOLDER.memory; half an hour and more on two cores
    python bench/rows.py check FOLDER [--sample 200] [--alone 20] [--out rows.json]

`run` starts `trimtab sweep`, kills it with SIGKILL after four minutes, twice, and lets it end the third time; every
5 seconds it writes a line: seconds since 1970, process, resident and highest memory in kB, parts written. `check` reads
both; lets another process write the first part of each process again, which must give the same bytes; and writes a
random sample of the rows again in other company, and some of them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from machine import about, status_kilobytes

from trimtab import Model, Recipe, open_model, open_sae
from trimtab.lm.decode import Row, decode
from trimtab.lm.sampling import stream_key
from trimtab.steer.grid import Cell
from trimtab.steer.run_folder import Run, open_run

MODEL = "gemma-3-270m"
PROMPTS = (
    "Once upon a time", "My day at work", "The best thing about the city is", "Last night I dreamt that",
    "The report says that", "She opened the door and", "We need to talk about", "In the morning they",
    "The first rule is", "Everyone knows that",
)  # fmt: skip
FEATURES = (11330, 6024, 10935, 100, 2000, 5000, 8000, 12001, 14000, 16000)
KILL_AFTER = (240, 240, None)


def command(folder: Path) -> list[str]:
    """The sweep as a command."""
    words = [sys.executable, "-m", "trimtab.cli", "sweep", *PROMPTS, "--strengths=-0.5,0.25,0.5,0.75,1"]
    words += [word for feature in FEATURES for word in ("-f", str(feature))]
    return [*words, "--seeds", "20", "--max-new-tokens", "60", "--no-summary", "--out", str(folder)]


def run(folder: Path) -> None:
    """The sweep in processes that are killed, and what memory they have."""
    for seconds in KILL_AFTER:
        began = time.monotonic()
        child = subprocess.Popen(command(folder))
        while child.poll() is None:
            now, most = (status_kilobytes(name, child.pid) for name in ("VmRSS", "VmHWM"))
            with memory_of(folder).open("a", encoding="ascii") as file:
                file.write(f"{time.time():.0f} {child.pid} {now} {most} {len(list(folder.glob('rows-*.parquet')))}\n")
            if seconds is not None and time.monotonic() - began > seconds:
                child.kill()
            time.sleep(5)
        if child.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"trimtab sweep ended with {child.returncode}")
        print("ended with", child.returncode, flush=True)


def memory_of(folder: Path) -> Path:
    """The file with the memory over time."""
    return folder.with_name(folder.name + ".memory")


def check(folder: Path, sample: int, alone: int) -> dict[str, Any]:
    """Counts, speed, memory, and how many rows of a sample are the same again."""
    done = open_run(folder)
    texts = {one["row"]: one for one in done.texts()}
    numbers = [one["row"] for one in done.texts()]
    tokens = sum(len(one["token_ids"]) - one["generated_from"] for one in texts.values())
    result: dict[str, Any] = {
        "rows": len(numbers), "wanted": done.rows, "twice": len(numbers) - len(texts),
        "missing": done.rows - len(texts), "tokens": tokens, **memory(folder, done.rows),
    }  # fmt: skip
    result["tokens_per_second"] = tokens / sum(result["process_seconds"])
    result["parts_again"] = rewritten(folder)
    print(result["parts_again"], flush=True)
    model = open_model(MODEL)
    chosen = random.Random(0).sample(sorted(texts), sample)
    print(result["rows"], result["tokens_per_second"], flush=True)
    result["again"] = compare(model, done, [texts[row] for row in chosen], 100)
    print(result["again"], flush=True)
    result["alone"] = compare(model, done, [texts[row] for row in chosen[:alone]], 1)
    return result


def rewritten(folder: Path) -> dict[str, int]:
    """The parts that were each process's first, so those that a kill had cut off too, written again by another process;
    how many are the same bytes."""
    logs = [[json.loads(line) for line in file.read_text().splitlines()] for file in sorted(folder.glob("log/*.jsonl"))]
    done = [[line["unit"] for line in log if line["what"] == "done"] for log in logs]
    first = [units[0] for units in done if units]
    with tempfile.TemporaryDirectory() as scratch:
        again = Path(scratch, "again")
        shutil.copytree(folder, again)
        for unit in first:
            again.joinpath(f"{unit}.parquet").unlink()
            again.joinpath("ledger", f"{unit}.json").unlink()
        subprocess.run(command(again), check=True)
        same = [
            again.joinpath(f"{unit}.parquet").read_bytes() == (folder / f"{unit}.parquet").read_bytes()
            for unit in first
        ]
    return {"parts": len(first), "same": sum(same)}


def memory(folder: Path, rows: int) -> dict[str, Any]:
    """Seconds of each process, (seconds since the first start, process, resident MB, rows done) twice a minute, and the
    highest resident MB in each part that a process wrote."""
    lines = [line.split() for line in memory_of(folder).read_text(encoding="ascii").splitlines()]
    samples = [tuple(map(int, line)) for line in lines if len(line) == 5]
    parts = max(line[4] for line in samples)
    of: dict[int, list[int]] = defaultdict(list)
    highest: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for when, process, now, _, done in samples:
        of[process].append(when)
        if done < parts:
            highest[process][done] = max(highest[process][done], round(now / 1024))
    numbers = {process: number for number, process in enumerate(of, 1)}
    start = samples[0][0]
    curve = [
        (when - start, numbers[process], round(now / 1024), min(rows, round(rows * done / parts)))
        for when, process, now, _, done in samples[::6]
    ]
    return {
        "process_seconds": [times[-1] - times[0] for times in of.values()],
        "memory": curve,
        "highest_in_parts": [list(one.values()) for one in highest.values()],
        "rows_in_part": rows / parts,
    }


def compare(model: Model, done: Run, texts: list[dict[str, Any]], batch_size: int) -> dict[str, Any]:
    """The same rows in the order given and in batches of another size; how many are the same, token for token."""
    sae, spec = open_sae(model.name), done.spec
    recipes: dict[Cell, Recipe | None] = {}
    rows = []
    for one in texts:
        cell = Cell(one["op"], one["feature"], one["strength"])
        recipe = recipes.setdefault(cell, cell.recipe(sae, spec))
        prompt = tuple(one["token_ids"][: one["generated_from"]])
        rows.append(Row(prompt, stream_key(one["seed"], one["prompt"], 0), spec.sampling, recipe, spec.scope.prompt))
    written = decode(model, rows, batch_size=batch_size, stops=model.eos_ids)
    kept = []
    for one, new in zip(texts, written, strict=True):
        stored = one["token_ids"][one["generated_from"] :]
        same = (a == b for a, b in zip(stored, new.tokens, strict=False))
        kept.append(next((i for i, equal in enumerate(same) if not equal), len(stored)) / len(stored))
    return {
        "rows": len(texts), "batch_size": batch_size, "same": sum(one == 1 for one in kept),
        "share_before_first_difference": sum(kept) / len(kept),
    }  # fmt: skip


def main() -> None:
    """Run, or check and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--alone", type=int, default=20)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.what == "run":
        run(args.folder)
        return
    result = check(args.folder, args.sample, args.alone)
    result["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps({key: value for key, value in result.items() if key != "memory"}, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        said = {"about": about(open_model(MODEL)), "results": result}
        args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
