"""A server that speaks S3, one Ray cluster of two processors, and work that can be told what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.scale import store


class Server:
    """A server that speaks S3 and keeps buckets as folders, with a bucket `runs`."""

    def __init__(self, root: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.root, self.at = root, f"http://127.0.0.1:{self.port}"
        self.environment = {"AWS_ENDPOINT_URL": self.at, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                            "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}  # fmt: skip
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "localbucket", str(self.root), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(300):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{self.at}/runs", method="PUT"), timeout=5).close()
                return
            except urllib.error.HTTPError:
                return  # the bucket is there from before
            except OSError:
                time.sleep(0.1)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An address on a server."""
    server = Server(tmp_path_factory.mktemp("buckets"))
    os.environ.update(server.environment)
    yield "s3://runs"
    server.kill()


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server for one test, which may kill it; it is not waited for long."""
    server = Server(tmp_path / "buckets")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store, "PATIENCE", 0.5)
    store._filesystem.cache_clear()
    yield server
    server.kill()
    store._filesystem.cache_clear()


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
