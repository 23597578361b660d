"""A server that speaks S3, one Ray cluster of two processors, and work that can be told what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An address on a server that keeps buckets as folders."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "localbucket", str(tmp_path_factory.mktemp("buckets")), "--port", str(port)]
    at = f"http://127.0.0.1:{port}"
    os.environ.update(AWS_ENDPOINT_URL=at, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1",
                      AWS_ALLOW_HTTP="true")  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{at}/runs", method="PUT"), timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield "s3://runs"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Ray with two processors, for all tests."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False,
        _system_config={"worker_niceness": 0},
    )  # fmt: skip
    yield ray
    ray.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    """Everything in a run folder but its log."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.parent.name != "log"}
