"""A server under random clients for minutes: cancellations, bad requests, restarts. Does anything go wrong, does memory
grow, is a place lost?

    python bench/serve_soak.py [--minutes 10] [--planted] [--out bench/results/serve_soak.json]

Starts `trimtab serve` on loopback with 8 places and 12 clients. Each client draws what it does next: a text, whole or
streamed, steered or not; one that it gives up in the middle; a request that is wrong; features, recipes, activations, a
job. After a fifth and after two fifths of the time the server gets SIGTERM while all are busy, and another one is
started. A fault is: an answer that is not the expected kind, an answer cut off without an error, a place that is taken
when all clients are quiet. Texts that differ from what the same request got at the beginning are counted apart: in
another batch float32 sums may round otherwise. `--planted`: the small model of tests instead of Gemma-3-270M, which is
asked many times more in the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from machine import processor, status_kilobytes
from serve_load import FEATURES, PROMPTS
from serving import Running, start

CLIENTS, SLOTS = 12, 8
RESTARTS = (0.2, 0.4)
DIFFER, REFUSED = "known texts that differ", "refused while it restarts"
KNOWN = 6  # requests whose texts are compared with those at the beginning


def wrong_requests(model: str) -> list[tuple[str, Any, set[int]]]:
    """Requests that must be refused: path, body, statuses that say so."""
    ask = {"model": model, "prompt": "x"}
    completions: list[tuple[Any, int]] = [
        (b"{", 400), (b"[" * 5000, 400), (ask | {"model": "gpt-4"}, 404), (ask | {"n": 999}, 400),
        (ask | {"prompt": "word " * 3000}, 400), (ask | {"prompt": "\ud800"}, 400),
        (ask | {"steering": "not-there"}, 404), (ask | {"steering": {"features": [{"feature": 10**6}]}}, 400),
    ]  # fmt: skip
    return [
        *(("/v1/completions", what, {status}) for what, status in completions),
        ("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "x"}]}, {400}),
        ("/v1/steer/completion", {"prompt": "x"}, {400}),
        ("/api/activations", {"text": "x" * 2_000_000}, {413}),
        ("/api/recipes", {"id": "../x", "steering": "y"}, {400}),
        ("/api/nothing", {}, {404}),
    ]


class Soak:
    """The clients, and what they have seen."""

    def __init__(self, seconds: float, recipes: Path, planted: bool) -> None:
        self.seconds, self.recipes, self.planted = seconds, recipes, planted
        self.model = "planted" if planted else "gemma-3-270m"
        self.features = tuple(range(1, 11)) if planted else FEATURES
        self.wrongs = wrong_requests(self.model)
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.memory: list[tuple[float, int, int]] = []  # seconds, number of the server, resident MB
        self.server: Running = self.begin()
        self.number = 1
        self.stopping = False
        self.known: dict[int, str] = {}
        self.draw = random.Random(0)

    def begin(self) -> Running:
        """A server."""
        return start(
            "--slots",
            str(SLOTS),
            "--queue",
            "64",
            "--seconds",
            "60",
            "--recipes",
            str(self.recipes),
            planted=self.planted,
        )

    def fault(self, what: str) -> None:
        """Something that is not the client's doing."""
        self.faults.append(what[:300])
        print("FAULT", what[:300], flush=True)

    async def run(self) -> dict[str, Any]:
        """All of it."""
        async with self.client() as client:
            for i in range(KNOWN):
                self.known[i] = await self.text(client, self.body(i, 24))
        began = time.monotonic()
        clients = [asyncio.create_task(self.act_on(began + self.seconds, i)) for i in range(CLIENTS)]
        watch = asyncio.create_task(self.watch(began))
        for share in RESTARTS:
            await asyncio.sleep(max(0.0, began + share * self.seconds - time.monotonic()))
            await self.restart()
        await asyncio.gather(*clients)
        watch.cancel()
        await self.places("at the end")
        exit_status = await asyncio.to_thread(self.server.stop)
        return {
            "seconds": time.monotonic() - began, "clients": CLIENTS, "done": dict(sorted(self.counts.items())),
            "requests": sum(n for name, n in self.counts.items() if name not in (DIFFER, REFUSED)),
            "faults": self.faults, "restarts": len(RESTARTS),
            "exit_status": exit_status, "memory": self.memory, "flat": flat(self.memory),
        }  # fmt: skip

    def client(self) -> httpx.AsyncClient:
        """A client of the server of the moment."""
        return httpx.AsyncClient(base_url=self.server.url, timeout=90, verify=False)

    async def watch(self, began: float) -> None:
        """Write down the memory of the server, every 5 seconds."""
        while True:
            megabytes = status_kilobytes("VmRSS", self.server.process.pid) // 1024
            if megabytes:
                self.memory.append((round(time.monotonic() - began), self.number, megabytes))
            await asyncio.sleep(5)

    async def restart(self) -> None:
        """SIGTERM while all clients are busy; then another server."""
        self.stopping = True
        status = await asyncio.to_thread(self.server.stop)
        if status not in (0, -15):
            self.fault(f"the server ended with {status}")
        self.server = await asyncio.to_thread(self.begin)
        self.number += 1
        self.stopping = False
        print("restarted", dict(self.counts), flush=True)

    async def places(self, when: str) -> None:
        """All clients are quiet: is every place free?"""
        async with self.client() as client:
            for _ in range(100):
                page = (await client.get("/metrics")).text
                if "trimtab_active_texts 0.0" in page and "trimtab_waiting_texts 0.0" in page:
                    break
                await asyncio.sleep(0.1)
            else:
                self.fault(f"{when} places are still taken")
            whole = await client.post("/v1/completions", json=self.body(0, 24) | {"n": SLOTS})
            if whole.status_code != 200:
                self.fault(f"{when} not all places can be used: {whole.text}")

    async def act_on(self, until: float, number: int) -> None:
        """One client."""
        draw = random.Random(number)
        actions = [
            self.same_text,
            self.whole,
            self.cancelled,
            self.left,
            self.wrong,
            self.look,
            self.save,
            self.steer,
            self.job,
        ]
        weights = [5, 5, 5, 3, 5, 3, 1, 2, 0.3]
        while time.monotonic() < until:
            action = draw.choices(actions, weights)[0]
            stopping, server = self.stopping, self.server
            try:
                async with self.client() as client:
                    await action(client, draw)
                self.counts[action.__name__] += 1
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError) as error:
                if stopping or self.stopping or server is not self.server:
                    self.counts[REFUSED] += 1
                    if isinstance(error, httpx.RemoteProtocolError) and "incomplete" in str(error):
                        self.fault(f"{action.__name__}: cut off: {error}")
                else:
                    self.fault(f"{action.__name__}: {type(error).__name__} {error}")
                await asyncio.sleep(0.5)
            except Expected as told:
                self.counts[str(told)] += 1
                await asyncio.sleep(0.5)
            except Exception as error:
                self.fault(f"{action.__name__}: {type(error).__name__} {error}")

    def check(self, response: httpx.Response, statuses: set[int]) -> None:
        """503 is an answer: when the server is full, or stops."""
        if response.status_code == 503 and response.headers.get("retry-after"):
            raise Expected(f"503 {response.json()['error']['code']}")
        if response.status_code not in statuses:
            raise RuntimeError(f"{response.status_code}: {response.text}")

    async def text(self, client: httpx.AsyncClient, ask: dict[str, Any]) -> str:
        """A streamed text."""
        pieces = []
        async with client.stream("POST", "/v1/completions", json=ask | {"stream": True}) as response:
            if response.status_code != 200:
                await response.aread()
            self.check(response, {200})
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    return "".join(pieces)
                if line:
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        if chunk["error"]["code"] == "closing":
                            raise Expected("stream closing")
                        raise RuntimeError(chunk["error"]["message"])
                    pieces.append(chunk["choices"][0]["text"])
        raise RuntimeError("a stream ended without [DONE]")

    def body(self, number: int, tokens: int) -> dict[str, Any]:
        """A request; every third is not steered."""
        steering = {"features": [{"feature": self.features[number % len(self.features)], "strength": 0.3}]}
        ask = {"model": self.model, "prompt": PROMPTS[number % len(PROMPTS)], "max_tokens": tokens, "seed": number}
        return ask | ({"steering": steering} if number % 3 else {})

    async def same_text(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A streamed text that is known."""
        i = draw.randrange(KNOWN)
        got = await self.text(client, self.body(i, 24))
        self.counts[DIFFER] += got != self.known[i]

    async def whole(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """Some texts at once."""
        ask = self.body(draw.randrange(100), draw.randint(1, 40)) | {"n": draw.randint(1, 4), "logprobs": 2}
        response = await client.post("/v1/completions", json=ask)
        self.check(response, {200})
        if len(response.json()["choices"]) != ask["n"]:
            raise RuntimeError("texts are missing")

    async def cancelled(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A stream that is left after some pieces."""
        ask = self.body(draw.randrange(100), 150) | {"stream": True, "n": draw.randint(1, 4)}
        async with client.stream("POST", "/v1/completions", json=ask) as response:
            if response.status_code != 200:
                await response.aread()
            self.check(response, {200})
            left = draw.randint(1, 30)
            async for _ in response.aiter_lines():
                left -= 1
                if not left:
                    return

    async def left(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A whole answer that is not waited for."""
        ask = self.body(draw.randrange(100), 150) | {"n": draw.randint(1, 4)}
        try:
            self.check(await client.post("/v1/completions", json=ask, timeout=draw.uniform(0.01, 2)), {200})
        except httpx.TimeoutException:
            return

    async def wrong(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A request that must be refused."""
        path, what, statuses = draw.choice(self.wrongs)
        content = what if isinstance(what, bytes) else json.dumps(what).encode()
        response = await client.post(path, content=content, headers={"Content-Type": "application/json"})
        self.check(response, statuses)

    async def look(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """What is known of features."""
        self.check(await client.get("/api/features/search", params={"q": draw.choice(("bread", "sea", "zzz"))}), {200})
        self.check(await client.get(f"/api/features/{draw.choice(self.features)}"), {200})
        self.check(await client.post("/api/activations", json={"text": draw.choice(PROMPTS)}), {200})

    async def save(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A recipe that is made, used and removed."""
        name = f"soak-{draw.randrange(10**9)}"
        steering = {"features": [{"feature": draw.choice(self.features), "strength": 0.4}]}
        self.check(await client.post("/api/recipes", json={"id": name, "steering": steering}), {201})
        self.check(await client.post("/v1/completions", json=self.body(0, 4) | {"steering": name}), {200})
        self.check(await client.delete(f"/api/recipes/{name}"), {204})

    async def steer(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """Neuronpedia's shape."""
        feature = {
            "model": self.model,
            "source": f"{1 if self.planted else 7}-x",
            "index": draw.choice(self.features),
            "strength": 200,
        }
        ask = {
            "prompt": draw.choice(PROMPTS), "model": self.model, "steerMethod": "SIMPLE_ADDITIVE",
            "normalizeSteering": False, "types": ["STEERED", "DEFAULT"], "features": [feature],
            "nCompletionTokens": 8, "temperature": 1, "strengthMultiplier": 1, "freqPenalty": 0, "seed": 1,
        }  # fmt: skip
        self.check(await client.post("/v1/steer/completion", json=ask), {200})

    async def job(self, client: httpx.AsyncClient, draw: random.Random) -> None:
        """A job that is begun and stopped."""
        steering = {"features": [{"feature": draw.choice(self.features), "strength": 0.5}]}
        response = await client.post("/api/dose", json={"steering": steering, "texts": 1})
        self.check(response, {202, 409})
        if response.status_code == 202:
            await asyncio.sleep(draw.uniform(0, 3))
            self.check(await client.delete(f"/api/jobs/{response.json()['id']}"), {200})


class Expected(Exception):
    """An answer that says no and is right."""


def flat(memory: list[tuple[float, int, int]]) -> dict[str, Any]:
    """Of the last server: the median of its memory in the second and in the last fifth of its time, in MB."""
    mine = [megabytes for _, number, megabytes in memory if number == memory[-1][1]]
    fifth = max(1, len(mine) // 5)
    early, late = statistics.median(mine[fifth : 2 * fifth]), statistics.median(mine[-fifth:])
    return {"early": early, "late": late, "growth": late - early, "most": max(mine)}


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--planted", action="store_true", help="on the small model of tests")
    parser.add_argument("--out", type=Path, default=Path("bench/results/serve_soak.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(args.minutes * 60, Path(folder), args.planted)
        try:
            result = asyncio.run(soak.run())
        finally:
            if soak.server.process.poll() is None:
                soak.server.stop()
    result |= {
        "model": soak.model, "threads": os.environ.get("OMP_NUM_THREADS"), "cores": os.cpu_count(),
        "processor": processor(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "memory"}, indent=1))


if __name__ == "__main__":
    main()
