"""10,000 bodies that fit the description, nearly fit it, or are no JSON at all: is any answer a 5xx, or undocumented?

    python bench/serve_fuzz.py [--bodies 10000] [--out bench/results/serve_fuzz.json]

The server runs in a thread of this process, on the small model of tests. Bodies that fit and that nearly fit are drawn
by schemathesis from the server's own description; half of the fitting ones are changed to ask for the model and for
features that are there, and for short texts, so that they get past the first checks. The others are bytes: pieces of
JSON cut and joined at random.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.generation import GenerationMode

from trimtab.serve.app import create_app
from trimtab.serve.limits import Limits
from trimtab.testing.planted import planted_world

PIECES = (
    *'{}[]",:-+.eE0\\ \n', "null", "true", "NaN", "Infinity", "1e999", "\\ud800", "\\u0000", "9" * 400, "[" * 3000,
    '"model"', '"planted"', '"prompt"', '"n"', '"steering"', '"features"', "\ufeff", "\U0001f600", "\ud800",
)  # fmt: skip
SMALL = {
    "model": "planted", "max_tokens": 2, "nCompletionTokens": 2, "n": 1, "texts": 0, "samples": 2,
    "steerMethod": "SIMPLE_ADDITIVE", "id": "sea", "save_as": None, "vectors": None,
    "positive": ["the flame saw a cat ."] * 9, "negative": ["the cat saw a dog ."] * 9,
}  # fmt: skip


def reaching(body: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A body that fits, changed to get past the first checks; its numbers and texts stay as they were drawn."""
    body = {key: SMALL.get(key, value) for key, value in body.items()}
    if "steering" in body:
        edit = draw.choice(("add", "clamp", "scale", "ablate", "min", "max"))
        one = {"feature": draw.randrange(30), "strength": draw.choice((0, -1, 1e-9, 9999, 0.5))}
        body["steering"] = {"features": [one], "edit": edit}
    if isinstance(body.get("features"), list):
        known = {"model": "planted", "source": "planted", "index": draw.randrange(30)}
        body["features"] = [
            {**one, **known} if isinstance(one, dict) else draw.randrange(30) for one in body["features"]
        ]
    return body


class Fuzz:
    """What was sent, and what came back."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)
        self.description = self.client.get("/openapi.json").json()
        self.counts: dict[str, Counter[str]] = {}
        self.wrong: list[dict[str, Any]] = []
        self.draw = random.Random(0)
        self.seen: list[Any] = []

    def send(self, path: str, kind: str, content: bytes) -> None:
        """One body."""
        response = self.client.post(path, content=content, headers={"Content-Type": "application/json"})
        status = response.status_code
        self.counts.setdefault(kind, Counter())[str(status)] += 1
        documented = self.description["paths"][path]["post"]["responses"]
        if status >= 500 or str(status) not in documented:
            self.wrong.append(
                {"path": path, "status": status, "body": repr(content)[:2000], "answer": response.text[:500]}
            )
            print("WRONG", self.wrong[-1], flush=True)

    def drawn(self, operation: Any, kind: str, bodies: int) -> None:
        """Bodies from the description."""
        mode = GenerationMode.POSITIVE if kind == "fits" else GenerationMode.NEGATIVE

        @settings(
            max_examples=bodies, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            body = case.body
            if kind == "fits" and isinstance(body, dict) and self.draw.random() < 0.5:
                body = reaching(body, self.draw)
            try:
                content = json.dumps(body).encode()
            except TypeError:  # not a body at all
                return
            self.seen.append(body)
            self.send(operation.path, kind, content)

        send()

    def bytes(self, path: str) -> None:
        """A body of bytes: one that was sent before, cut, with something between."""
        whole = json.dumps(self.draw.choice(self.seen)) if self.seen else "{}"
        at = self.draw.randrange(len(whole) + 1)
        middle = "".join(self.draw.choices(PIECES, k=self.draw.randrange(8)))
        text = whole[:at] + middle + whole[at + self.draw.randrange(10) :]
        content = text.encode("utf-8", "surrogatepass")
        if self.draw.random() < 0.2:
            content = self.draw.randbytes(self.draw.randrange(200))
        self.send(path, "bytes", content)


def fuzz(url: str, bodies: int) -> dict[str, Any]:
    """As many bodies over all routes that take one."""
    found = Fuzz(url)
    schema = schemathesis.openapi.from_dict(found.description)
    operations = [one.ok() for one in schema.get_all_operations()]
    posts = [one for one in operations if one.method.upper() == "POST"]
    share = bodies // (3 * len(posts))
    began = time.monotonic()
    for operation in posts:
        found.seen = []
        for kind in ("fits", "nearly fits"):
            found.drawn(operation, kind, share)
        for _ in range(share):
            found.bytes(operation.path)
        print(operation.path, dict(found.counts), flush=True)
    while sum(map(Counter.total, found.counts.values())) < bodies:
        found.bytes(found.draw.choice(posts).path)
    alive = found.client.get("/health").json()["status"]
    text = found.client.post("/v1/completions", json={"model": "planted", "prompt": "the cat"}).status_code
    return {
        "bodies": sum(map(Counter.total, found.counts.values())), "routes": len(posts), "wrong": found.wrong,
        "statuses": {kind: dict(sorted(counts.items())) for kind, counts in found.counts.items()},
        "alive": alive, "text_afterwards": text, "seconds": time.monotonic() - began,
    }  # fmt: skip


def main() -> None:
    """Serve, send, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("bench/results/serve_fuzz.json"))
    args = parser.parse_args()
    world = planted_world()
    world.model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}."
    limits = Limits(prompt_tokens=60, max_tokens=40, slots=8, body_bytes=20_000, seconds=30)
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(world.model, [world.sae], recipes=Path(folder), limits=limits, grace=1)
        config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            result = fuzz(f"http://127.0.0.1:{port}", args.bodies)
        finally:
            server.should_exit = True
            thread.join()
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
