"""`trimtab serve` as a process of its own, for measurements."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Running(NamedTuple):
    """A server that listens."""

    url: str
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def start(*options: str) -> Running:
    """Start `trimtab serve` on a free port of loopback, and wait until it listens."""
    command = [sys.executable, "-m", "trimtab.cli", "serve", "--port", "0", "--json", *options]
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
