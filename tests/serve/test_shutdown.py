"""A server in a process of its own is told to stop while texts are written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from trimtab.steer.generate import generate
from trimtab.testing.planted import PlantedWorld

SERVER = """
import sys, time
from pathlib import Path
from trimtab.lm.engine import Engine
from trimtab.serve.app import create_app
from trimtab.serve.limits import Limits
from trimtab.serve.run import listen
from trimtab.testing.planted import planted_world

step, pause, grace = Engine.step, float(sys.argv[1]), float(sys.argv[2])
Engine.step = lambda self: (time.sleep(pause), step(self))[1]
world = planted_world()
limits = Limits(prompt_tokens=60, max_tokens=150, slots=2)
app = create_app(world.model, [world.sae], recipes=Path(sys.argv[3]), limits=limits)
listen(app, "127.0.0.1", 0, grace=grace, ready=lambda url: print(url, flush=True))
"""
ASK = {"model": "planted", "prompt": "the cat saw", "max_tokens": 40, "seed": 1, "temperature": 1}
Start = Callable[[float, float], tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def run(pause: float, grace: float) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-c", SERVER, str(pause), str(grace), str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield run
    for process in started:
        process.kill()
        process.communicate()


def stream(url: str, begun: Future[None], body: Any) -> list[str]:
    """The events of a stream; `begun` is done at the first."""
    lines = []
    with httpx.stream("POST", f"{url}/v1/completions", json={**body, "stream": True}, timeout=60) as response:
        for line in response.iter_lines():
            if line:
                lines.append(line.removeprefix("data: "))
                if not begun.done():
                    begun.set_result(None)
    return lines


def until(url: str, line: str, running: Future[Any]) -> None:
    while line not in httpx.get(f"{url}/metrics", timeout=30).text:
        assert not running.done(), "it ended before the others had begun"


def stop_while_writing(start: Start, pause: float, grace: float) -> tuple[list[str], httpx.Response, httpx.Response]:
    """What a stream and a whole answer that were under way came to, and one that waited for a place."""
    process, url = start(pause, grace)
    begun: Future[None] = Future()
    with ThreadPoolExecutor() as pool:
        streamed = pool.submit(stream, url, begun, ASK)
        begun.result(30)
        whole = pool.submit(httpx.post, f"{url}/v1/completions", json=ASK, timeout=60)
        until(url, "trimtab_active_texts 2.0", streamed)
        waiting = pool.submit(httpx.post, f"{url}/v1/completions", json={**ASK, "n": 2}, timeout=60)
        until(url, "trimtab_waiting_texts 2.0", streamed)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=grace + 20) in (0, -signal.SIGTERM)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
        return streamed.result(), whole.result(), waiting.result()


def test_what_is_under_way_is_finished(start: Start, world: PlantedWorld) -> None:
    expected = generate(world.model, ASK["prompt"], seed=1, max_new_tokens=40)[0].text
    streamed, whole, waiting = stop_while_writing(start, pause=0.1, grace=60)
    assert streamed[-1] == "[DONE]"
    assert "".join(json.loads(line)["choices"][0]["text"] for line in streamed[:-1]) == expected
    assert whole.json()["choices"][0]["text"] == expected
    assert waiting.json()["choices"][0]["text"] == expected


def test_what_takes_longer_than_the_grace_ends_with_an_error(start: Start) -> None:
    streamed, whole, waiting = stop_while_writing(start, pause=0.5, grace=1)
    error = json.loads(streamed[-1])["error"]
    assert (error["code"], error["type"]) == ("closing", "server_error")
    for answer in (whole, waiting):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "closing"
        assert answer.headers["retry-after"]
