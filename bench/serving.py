"""`trimtab serve` as a process of its own, for measurements; run as a script, the same on the small model of tests."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Running(NamedTuple):
    """A server that listens."""

    url: str
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def start(*options: str, planted: bool = False) -> Running:
    """Start `trimtab serve` on a free port of loopback, and wait until it listens."""
    command = [sys.executable, "-m", "trimtab.cli", "serve", "--port", "0", "--json", *options]
    if planted:
        command = [sys.executable, __file__, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:  # JSON over several lines
        said += line
        if line.startswith("}"):
            return Running(str(json.loads(said)["url"]), process)
    raise SystemExit(f"trimtab serve ended with {process.wait()}")


@contextmanager
def server(*options: str) -> Iterator[Running]:
    """A server that is stopped at the end."""
    running = start(*options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def serve_planted(folder: Path, slots: int, queue: int, seconds: float) -> None:
    """Serve the planted model with an index, as `trimtab serve --json` does; recipes and index lie in `folder`."""
    from trimtab.index.build import build
    from trimtab.index.spec import IndexSpec
    from trimtab.serve.app import create_app
    from trimtab.serve.limits import Limits
    from trimtab.serve.run import listen
    from trimtab.testing.planted import planted_world

    world = planted_world()
    texts = folder / "texts.txt"
    texts.write_text("\n\n".join(world.texts("fire", 20) + world.texts(None, 20)), encoding="utf-8")
    index = build(world.model, world.sae, [str(texts)], folder / "index", IndexSpec(context=32, tokens=None))
    limits = Limits(prompt_tokens=60, max_tokens=150, slots=slots, queue=queue, seconds=seconds)
    app = create_app(world.model, [world.sae], recipes=folder, index=index, limits=limits)

    def ready(url: str) -> None:
        print(json.dumps({"url": url}, indent=1), flush=True)

    listen(app, "127.0.0.1", 0, grace=20, ready=ready)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipes", type=Path)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--queue", type=int)
    parser.add_argument("--seconds", type=float)
    args = parser.parse_args()
    serve_planted(args.recipes, args.slots, args.queue, args.seconds)
