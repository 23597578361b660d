"""A sweep of the real model here and on Ray: what Ray costs, what a second worker brings, whether bytes are the same.

    python bench/scale.py STAGE FOLDER     # a stage: local-2, ray-2, local-1, ray-1, report; each on its own
    python bench/scale.py parts FOLDER TEXTS
    python bench/scale.py overhead FOLDER

`parts` measures what a token costs in each step, in processor seconds and bytes. local-2 has two threads, ray-2 two
workers of one thread. local-1 and ray-1 do the first half of the units with one thread. OMP_NUM_THREADS says how many
threads there are, and must fit the stage. `overhead` is about Ray alone. `report` puts together what the stages left,
bench/results/scale.json.
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


def parts(folder: Path, texts: str) -> None:
    """Processor seconds and bytes of a token: read, stored, merged, written. One thread."""
    from itertools import islice

    from trimtab.index.build import IndexSpec, _windows
    from trimtab.index.events import events
    from trimtab.index.many import from_bytes, to_bytes
    from trimtab.index.state import State
    from trimtab.lm.packed import packed_layers
    from trimtab.sae.firing import finder
    from trimtab.scale.unit import Unit

    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    spec = IndexSpec(window=32)
    state = State(spec, sae.d_sae, int(model.hf.get_input_embeddings().weight.shape[0]), folder / "state.safetensors")
    clock: dict[str, float] = {}
    tokens = size = firings = 0

    def timed(name: str, work: Any, *args: Any) -> Any:
        began = time.process_time()
        found = work(*args)
        clock[name] = clock.get(name, 0.0) + time.process_time() - began
        return found

    def merge(content: bytes) -> None:
        state.add(from_bytes(content))

    windows = _windows(model, [texts], spec, 0)
    find = finder(sae)
    limit = None
    with packed_layers(model):
        for number in range(3):
            window = timed("tokenise", next, windows)
            found, limit = (timed("read", events, model, sae, window, state.contexts, limit, find) if number
                            else events(model, sae, window, 0, limit, find))  # fmt: skip
            content = timed("store", to_bytes, found)
            timed("merge", merge, content)
            tokens, size, firings = tokens + len(found.ids), size + len(content), firings + len(found.token)
    out: dict[str, Any] = {f"microseconds_{name}": 1e6 * seconds / tokens for name, seconds in clock.items()}
    out["microseconds_read"] *= 3 / 2  # the first was not timed
    out |= {"bytes_of_a_window": size / tokens, "firings": firings / tokens, "tokens": tokens}
    job = _job(model, sae, SPEC, None, 32)
    unit = next(islice(job.units(), 1, None))
    began = time.process_time()
    part = job.part(Unit(unit.id, unit.work[:32]), lambda _: None)
    out["sweep"] = {
        "tokens": part.facts["tokens"], "bytes": len(next(iter(part.files.values()))) / part.facts["tokens"],
        "microseconds": 1e6 * (time.process_time() - began) / part.facts["tokens"],
    }  # fmt: skip
    print(json.dumps(out, indent=2))
    (folder / "parts.json").write_text(json.dumps(out))


def overhead(folder: Path) -> None:
    """What Ray adds to a run in processor seconds of all its processes, once the workers are ready: a small random
    model, 24 units of about a second. A busy machine does not change that much, as it changes wall-clock time.
    """
    import ray
    import torch

    from trimtab.steer.corpus import CorpusSpec
    from trimtab.steer.corpus import _job as corpus_job
    from trimtab.steer.run_folder import CORPUS
    from trimtab.testing.models import tiny_model

    torch.set_num_threads(1)
    model = tiny_model("gemma3_text", d_model=128, n_layers=4)
    spec = CorpusSpec(texts=24 * 64, prompts=("a", "bc"), sampling=Sampling(max_new_tokens=40))
    job = corpus_job(model, spec, None, 32)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             _system_config={"worker_niceness": 0})  # fmt: skip
    out: dict[str, Any] = {}
    for name, on in (("local", On()), ("ray", On("ray", 2, 1))):
        there = CORPUS.folder(folder / name)
        there.begin({**job.manifest, "units": len(job.units())})
        begun = 0.0
        for units, _ in enumerate(run_units(job.open, job.units(), there, on), 1):
            if units == 6:
                begun = processor_seconds()
            if units == len(job.units()):
                out[name] = processor_seconds() - begun
    ray.shutdown()
    out["ray_adds"] = out["ray"] / out["local"] - 1
    print(json.dumps(out))
    (folder / "overhead.json").write_text(json.dumps(out))


def processor_seconds() -> float:
    """Of this process and all that came from it and live."""
    parents, used = {}, {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(path.name)], used[int(path.name)] = int(words[1]), (int(words[11]) + int(words[12]))
    mine, more = {os.getpid()}, {os.getpid()}
    while more:
        more = {one for one, parent in parents.items() if parent in more} - mine
        mine |= more
    return sum(used[one] for one in mine) / os.sysconf("SC_CLK_TCK")


def report(folder: Path) -> None:
    """What the stages say together."""
    from machine import about

    found = {stage: json.loads(path.read_text()) for stage in STAGES if (path := folder / f"{stage}.json").exists()}
    names = [name for name in ("parts", "overhead") if (folder / f"{name}.json").exists()]
    out: dict[str, Any] = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
    for stage, one in found.items():
        tokens, busy = sum(unit["tokens"] for unit in one["units"]), [unit["seconds"] for unit in one["units"]]
        begin = min(unit["at"] - unit["seconds"] for unit in one["units"])
        out[stage] = {
            "tokens": tokens, "seconds": one["seconds"], "seconds_until_first_unit": begin,
            "tokens_per_second": tokens / one["seconds"],
            "tokens_per_second_once_begun": tokens / (one["seconds"] - begin),
            "seconds_of_a_unit": statistics.median(busy), "units": len(busy),
        }  # fmt: skip
    if len(found) == len(STAGES):
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
    if stage == "parts":
        parts(place, sys.argv[3])
    elif stage == "overhead":
        overhead(place)
    else:
        report(place) if stage == "report" else measure(stage, place)
