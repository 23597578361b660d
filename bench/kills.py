"""Runs that are ended at random moments and gone on with: is the result the same, to the byte?

    python bench/kills.py [--moments 20] [--events driver sigint server away disk worker] [--jobs sweep index benchmark]
                          [--out bench/results/kills.json]

A sweep, an index build and a benchmark of a planted model. driver: SIGKILL. sigint: Ctrl-C. server: SIGKILL of the
S3-like server that the run is stored on, which comes back after half a second. away: the same, and it comes back when
the run has given up. disk: a tmpfs that is full at a random byte (needs root). worker: SIGKILL of a worker on Ray. A
moment counts only if the run had not ended by then. Everything runs in children of one process that has loaded what it
needs and computed nothing. What --out has of other events and jobs stays.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trimtab import Sampling
from trimtab.errors import StorageError
from trimtab.evidence.benchmark.concepts import concept_of
from trimtab.evidence.benchmark.run import run as run_bench
from trimtab.evidence.benchmark.units import BenchSpec, cells_of
from trimtab.find.pairs import ContrastSet
from trimtab.index.build import IndexSpec, build
from trimtab.scale import store
from trimtab.scale.run import On
from trimtab.scale.store import open_store
from trimtab.steer.grid import SweepSpec
from trimtab.steer.run_folder import read_rows
from trimtab.steer.sweep import sweep
from trimtab.testing.planted import planted_world

SWEEP = SweepSpec(
    prompts=("ab", "some longer prompt"), features=(3, 17, 5), strengths=(2.0, -1.0), ops=("add", "clamp"),
    seeds=(0, 4), sampling=Sampling(max_new_tokens=7),
)  # fmt: skip
INDEX = IndexSpec(context=24, window=6, top=4, random=3, per_band=2, words=60, partners=20)
CELLS = cells_of(["sea", "fire"], ["mean difference", "prompt by examples", "random"], [0.1, 0.3])
Job = Callable[[str, On], Any]


class Bench:
    """The jobs, what they make when nothing happens, and how long that takes."""

    def __init__(self, root: Path, seed: int, names: list[str]) -> None:
        self.root, self.draw = root, random.Random(seed)
        world = self.world = planted_world()
        rows = [text for concept in (None, *world.words) for text in world.texts(concept, 20, 0)]
        self.texts, self.loaded = root / "texts.jsonl", root / "modules"
        self.texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
        concepts = [
            concept_of(ContrastSet.of(world.texts(name, 24, 1), world.texts(None, 24, 2), name=name))
            for name in ("sea", "fire")
        ]
        asked = BenchSpec(
            prompts=("the cat saw",), dose_prompts=tuple(text[:60] for text in world.texts(None, 4, 3)), samples=4,
            sampling=Sampling(max_new_tokens=8),
        )  # fmt: skip
        jobs: dict[str, Job] = {
            "sweep": lambda at, on: sweep(world.model, world.sae, SWEEP, at, batch_size=4, on=on),
            "index": lambda at, on: build(world.model, world.sae, [str(self.texts)], at, INDEX, on=on, save_every=0.05),
            "benchmark": lambda at, on: run_bench(
                world.model, [world.sae], at, asked, concepts, CELLS, witness=world.sae, on=on
            ),
        }
        self.jobs = {name: jobs[name] for name in names}
        self.whole: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        for name in self.jobs:
            for run in ("first", "second"):  # the first says what is loaded on the way, so that no later child loads it
                began, at = time.monotonic(), str(root / run / name)
                assert self.ended(self.child(name, at)) == 0
                self.seconds[name], self.whole[name] = time.monotonic() - began, content(at)
                for module in self.loaded.read_text().split():
                    importlib.import_module(module)

    def child(self, job: str, at: str, on: On | None = None) -> int:
        """A process that does a job; it exits with 0, 3 when the storage fails, 130 when it is interrupted."""
        made = os.fork()
        if made == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without it
                self.jobs[job](at, on or On())
                libraries = ("trimtab.", "pyarrow.", "safetensors.", "sklearn.", "scipy.")
                names = [name for name in sys.modules if name.startswith(libraries)]
                self.loaded.write_text("\n".join(names))
                code = 0
            except StorageError:
                code = 3
            except KeyboardInterrupt:
                code = 130
            finally:
                os._exit(code)
        return made

    @staticmethod
    def ended(child: int) -> int:
        """Its exit code, when it has ended."""
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def again(self, event: Callable[[str, str], int | None], job: str, moments: int, place: str) -> dict[str, Any]:
        """`event(job, at)` begins the job, ends it, and says with what exit code; None when it was too late."""
        same, codes, late = 0, [], 0
        while len(codes) < moments:
            at = f"{place}/{job}-{event.__name__}-{len(codes)}-{late}"
            code = event(job, at)
            if code is None:
                late += 1
                self.seconds[job] *= 0.8  # the machine is faster than when the job was timed
                if late > 10 * moments:
                    raise SystemExit(f"{event.__name__} never comes before {job} is done")
                continue
            codes.append(code)
            assert self.ended(self.child(job, at)) == 0, at
            # Of a server, its own folder: its library cannot fork.
            there = at.replace("s3:/", str(self.root / f"buckets-{event.__name__}"))
            same += content(there) == self.whole[job]
            if job == "sweep":
                assert [row["row"] for row in read_rows(there)] == list(range(SWEEP.n_rows))
            shutil.rmtree(there)
        return {
            "moments": moments,
            "same": same,
            "codes": {str(code): codes.count(code) for code in sorted(set(codes))},
        }

    def wait(self, job: str) -> None:
        """Until a random moment of the job."""
        time.sleep(self.draw.uniform(0, self.seconds[job]))

    def driver(self, job: str, at: str) -> int | None:
        """SIGKILL."""
        return self._signal(job, at, signal.SIGKILL)

    def sigint(self, job: str, at: str) -> int | None:
        """What Ctrl-C sends."""
        return self._signal(job, at, signal.SIGINT)

    def _signal(self, job: str, at: str, which: signal.Signals) -> int | None:
        child = self.child(job, at)
        self.wait(job)
        os.kill(child, which)
        return self.ended(child) or None

    def disk(self, job: str, at: str) -> int | None:
        """A disk that is full at a random byte; it has room when the run goes on."""
        Path(at).mkdir(parents=True)
        size = sum(map(len, self.whole[job].values()))
        pages = self.draw.randint(1, max(2, size // 4096))
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={4 * pages}k", "none", at], check=True)
        try:
            code = self.ended(self.child(job, at + "/run"))
            shutil.copytree(at + "/run", at + "-kept") if Path(at, "run").exists() else None
        finally:
            subprocess.run(["umount", at], check=True)
        Path(at).rmdir()
        if Path(at + "-kept").exists():
            Path(at + "-kept").rename(at)
        return code or None


class Server:
    """An S3-like server that keeps its buckets in a folder, and can be killed."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.at, self.root = f"http://127.0.0.1:{self.port}", root
        os.environ.update(AWS_ENDPOINT_URL=self.at, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b",
                          AWS_REGION="us-east-1", AWS_ALLOW_HTTP="true")  # fmt: skip
        root.mkdir()
        self.start()

    def start(self) -> None:
        """Listen, with the bucket `runs`."""
        command = [sys.executable, "-m", "localbucket", str(self.root), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.at}/runs", method="PUT"), timeout=5).close()
                return
            except urllib.error.HTTPError:
                return  # it is there from before
            except OSError:
                time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


def server_killed(bench: Bench, server: Server, *, away: bool) -> Callable[[str, str], int | None]:
    """An event: the server dies at a random moment. It comes back after a while, or (`away`) when the run has given up;
    a run that did not survive that is gone on with.
    """

    def event(job: str, at: str) -> int | None:
        child = bench.child(job, at)
        bench.wait(job)
        over = os.waitpid(child, os.WNOHANG)[0] == child
        server.kill()
        code = None
        if away and not over:
            code = bench.ended(child)
        else:
            time.sleep(0.5)
        server.start()
        return (code or None) if over or away else bench.ended(child)

    event.__name__ = "away" if away else "server"
    return event


def worker_killed(bench: Bench) -> Callable[[str, str], int | None]:
    """An event on Ray, in this very process: a worker dies at a random moment, and the run ends as if nothing was."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             _system_config={"worker_niceness": 0})  # fmt: skip
    own = ray_workers()

    def worker_event(job: str, at: str) -> int | None:
        killed: list[int] = []

        def kill() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and len(ray_workers() - own) < 2:
                time.sleep(0.02)
            time.sleep(bench.draw.uniform(0, 2 * bench.seconds[job] + 3))
            victims = sorted(ray_workers() - own)
            if victims:
                killed.append(bench.draw.choice(victims))
                os.kill(killed[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        bench.jobs[job](at, On("ray", 2, 1))
        thread.join()
        return 0 if killed else None

    worker_event.__name__ = "worker"
    return worker_event


def ray_workers() -> set[int]:
    """Processes of actors."""
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                words = (path / "cmdline").read_bytes()
                if words.startswith(b"ray::Worker"):
                    found.add(int(path.name))
            except OSError:
                continue
    return found


def content(at: str) -> dict[str, bytes]:
    """Every file of a run but its log."""
    store, found = open_store(at), {}
    for folder in ("", *store.folders()):
        if folder != "log":
            names = store.names(f"{folder}/*" if folder else "*")
            found |= {name: store.read(name) for name in names}
    return found


def main() -> None:
    """All events, and what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--events", nargs="+", default=["driver", "sigint", "server", "away", "disk", "worker"])
    parser.add_argument("--jobs", nargs="+", default=["sweep", "index", "benchmark"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        os.environ["TRIMTAB_CACHE"] = f"{root}/cache"  # copies of indexes on the server
        bench = Bench(Path(root), args.seed, args.jobs)
        for name in args.events:
            server = Server(Path(root) / f"buckets-{name}") if name in ("server", "away") else None
            store.PATIENCE = 1.0 if name == "away" else 30.0
            event = (server_killed(bench, server, away=name == "away") if server else worker_killed(bench)
                     if name == "worker" else getattr(bench, name))  # fmt: skip
            for job in args.jobs:
                place = "s3://runs" if server else str(Path(root) / "runs")
                results[f"{name}, {job}"] = bench.again(event, job, args.moments, place)
                print(name, job, results[f"{name}, {job}"], flush=True)
            if server:
                server.kill()
    if args.out:
        before = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
        args.out.write_text(json.dumps(before | results, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(one["same"] != one["moments"] for one in results.values()))


if __name__ == "__main__":
    main()
