"""Servers in threads of their own, on tiny models."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn

from trimtab.index.build import IndexSpec, build
from trimtab.index.lens import add_lens
from trimtab.index.store import Index
from trimtab.serve.app import create_app
from trimtab.serve.limits import Limits
from trimtab.serve.service import Service
from trimtab.testing.planted import PlantedWorld, planted_world

Serving = Callable[..., AbstractContextManager["Server"]]
collect_ignore = ["page"]  # needs a browser: `make test-page`
LIMITS = Limits(prompt_tokens=60, max_tokens=150, rows=32, slots=8, queue=40, body_bytes=20_000, seconds=30)


class Server(NamedTuple):
    """Where a server listens, and what is behind it."""

    url: str
    service: Service

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, timeout=30, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, **more)

    def wait(self, true: Callable[[], bool]) -> None:
        """Until something is so, or fail after a minute."""
        end = time.monotonic() + 60
        while not true():
            assert time.monotonic() < end, "it never became so"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def index(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of the planted SAE, with its lens."""
    folder = tmp_path_factory.mktemp("index")
    rows = [{"text": text, "source": str(c)} for c in (None, *world.words) for text in world.texts(c, 30)]
    random.Random(0).shuffle(rows)
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = IndexSpec(context=24, window=20, top=4, random=3, per_band=2, words=500, partners=500)
    made = build(world.model, world.sae, [str(folder / "texts.jsonl")], folder / "index", spec)
    add_lens(world.model, world.sae, made, tokens=5, neighbours=3)
    return made


@contextmanager
def serving(model: Any, saes: Any, recipes: Path, **more: Any) -> Iterator[Server]:
    app = create_app(model, saes, recipes=recipes, **{"limits": LIMITS, "grace": 5.0, **more})
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Server(url, app.state.service)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture(scope="session", name="serving")
def _serving() -> Serving:
    return serving


@pytest.fixture(scope="module")
def server(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(world.model, [world.sae], tmp_path_factory.mktemp("recipes")) as one:
        yield one
