"""Runs that are killed, interrupted, or lose their storage at random moments end with the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_few_random_moments(tmp_path: Path) -> None:
    events, jobs = ["driver", "sigint", "server", "away"], ["sweep", "index", "benchmark"]
    words = ["--moments", "1", "--seed", "1", "--events", *events, "--jobs", *jobs, "--out", tmp_path / "out.json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, ROOT / "bench" / "kills.py", *words]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    found = json.loads((tmp_path / "out.json").read_text())
    assert {name: one["same"] for name, one in found.items()} == {
        f"{event}, {job}": 1 for event in events for job in jobs
    }
    assert set(found["driver, index"]["codes"]) == {"-9"}
    assert set(found["sigint, sweep"]["codes"]) == {"130"}
    assert set(found["away, benchmark"]["codes"]) == {"3"}
