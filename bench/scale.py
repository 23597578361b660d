"""A sweep of the real model here and on Ray: what Ray costs, what a second worker brings, whether bytes are the same.

    python bench/scale.py STAGE FOLDER     # a stage: local-2, ray-2, local-1, ray-1, report; each on its own

local-2 has two threads, ray-2 two workers of one thread. local-1 and ray-1 do the first half of the units with one
thread. OMP_NUM_THREADS says how many threads there are, and must fit the stage. `report` compares the folders that the
stages left and writes bench/results/scale.json.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from trimtab import Sampling, open_model, open_sae
from trimtab.scale.run import On, run_units
from trimtab.steer.grid import SweepSpec
from trimtab.steer.run_folder import SWEEP
from trimtab.steer.sweep import _job

SPEC = SweepSpec(
    prompts=("Once upon a time", "My day at work", "The weather in the mountains was", "Last night I dreamt that"),
    features=(11330, 6024, 100, 2000, 5000),
    strengths=(0.25, 0.5, 1.0),
    seeds=tuple(range(6)),
    sampling=Sampling(max_new_tokens=60),
)
STAGES = {"local-2": (On(), 2), "ray-2": (On("ray", 2, 1), 1), "local-1": (On(), 1), "ray-1": (On("ray", 1, 1), 1)}
RESULT = Path(__file__).parent / "results" / "scale.json"


def measure(stage: str, folder: Path) -> None:
    """Do the units of a stage, and note when each was done."""
    on, threads = STAGES[stage]
    assert os.environ.get("OMP_NUM_THREADS") == str(threads), f"{stage} needs OMP_NUM_THREADS={threads}"
    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    job = _job(model, sae, SPEC, None, 32)
    units = job.units() if stage.endswith("2") else job.units()[: len(job.units()) // 2]
    there = SWEEP.folder(folder / stage)
    there.begin({**job.manifest, "units": len(units)})
    began, seen = time.monotonic(), []
    for done in run_units(job.open, units, there, on, say=print):
        seen.append({"unit": done.unit.id, "at": time.monotonic() - began, "seconds": done.seconds, **done.entry.facts})
        print(stage, seen[-1], flush=True)
    result = {"stage": stage, "seconds": time.monotonic() - began, "units": seen}
    (folder / f"{stage}.json").write_text(json.dumps(result, indent=1))


def report(folder: Path) -> None:
    """What the stages say together."""
    from machine import about

    found = {stage: json.loads((folder / f"{stage}.json").read_text()) for stage in STAGES}
    out: dict[str, Any] = {}
    for stage, one in found.items():
        tokens, busy = sum(unit["tokens"] for unit in one["units"]), [unit["seconds"] for unit in one["units"]]
        begin = min(unit["at"] - unit["seconds"] for unit in one["units"])
        out[stage] = {
            "tokens": tokens, "seconds": one["seconds"], "seconds_until_first_unit": begin,
            "tokens_per_second": tokens / one["seconds"],
            "tokens_per_second_once_begun": tokens / (one["seconds"] - begin),
            "seconds_of_a_unit": statistics.median(busy), "units": len(busy),
        }  # fmt: skip
    whole = {stage: {p.name: p.read_bytes() for p in (folder / stage).glob("rows-*")} for stage in STAGES}
    half = whole["local-1"].keys()
    out["same_bytes"] = {
        "ray-1 as local-1": sum(whole["ray-1"][name] == whole["local-1"][name] for name in half),
        "ray-2 as local-1": sum(whole["ray-2"][name] == whole["local-1"][name] for name in half),
        "ray-2 as local-2": sum(whole["ray-2"][name] == whole["local-2"][name] for name in whole["ray-2"]),
        "of": [len(half), len(half), len(whole["ray-2"])],
    }
    out["ray_costs"] = found["ray-2"]["seconds"] / found["local-2"]["seconds"] - 1
    begun = "tokens_per_second_once_begun"
    out["ray_costs_once_begun"] = out["local-2"][begun] / out["ray-2"][begun] - 1
    out["scaling_1_to_2"] = out["ray-2"][begun] / out["ray-1"][begun]
    RESULT.write_text(json.dumps({"about": about(open_model("gemma-3-270m")), "results": out}, indent=2) + "\n")
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    stage, place = sys.argv[1], Path(sys.argv[2])
    place.mkdir(parents=True, exist_ok=True)
    report(place) if stage == "report" else measure(stage, place)
