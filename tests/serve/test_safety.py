"""Who may come in, what every answer says to browsers, and that nothing a client does holds a place for ever."""

from __future__ import annotations

import hmac
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from trimtab.serve.guard import HEADERS
from trimtab.serve.limits import Limits
from trimtab.steer.generate import generate
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

ASK = {"model": "planted", "prompt": "the cat saw", "max_tokens": 8, "seed": 1}
KEY = "a-key-that-must-not-be-told"
MINE = "https://notebook.example"


@pytest.fixture(scope="module")
def shared(serving: Serving, world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key, that pages of one other origin may use."""
    folder = tmp_path_factory.mktemp("shared")
    with serving(world.model, [world.sae], folder, key=KEY, hosts=None, origins=[MINE]) as one:
        yield one


def code(response: httpx.Response) -> str:
    return str(response.json()["error"]["code"])


def socket_to(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def raw(server: Server, head: str, body: bytes = b"") -> bytes:
    """The answer to bytes as they are."""
    with closing(socket_to(server)) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://notebook.example", "https://notebook.example:444",
     "https://notebook.example.evil.example", "https://notebook.example/", "", "HTTPS://NOTEBOOK.EXAMPLE"],
)  # fmt: skip
def test_pages_of_other_origins_are_refused_whatever_they_ask(shared: Server, origin: str) -> None:
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}"}
    asked = (
        shared.get("/v1/models", headers=headers),
        shared.post("/v1/completions", ASK, headers=headers),
        httpx.options(
            f"{shared.url}/v1/completions",
            headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        ),
    )
    for response in asked:
        assert (response.status_code, code(response)) == (403, "origin")
        assert not any(name.startswith("access-control") for name in response.headers)


def test_a_listed_origin_may_ask_and_still_needs_the_key(shared: Server) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization, content-type"}
    preflight = httpx.options(f"{shared.url}/v1/completions", headers={"Origin": MINE, **asked})
    assert (preflight.status_code, preflight.content) == (204, b"")
    allowed = preflight.headers["access-control-allow-headers"].split(", ")
    assert {"authorization", "content-type"} <= set(allowed)
    assert "POST" in preflight.headers["access-control-allow-methods"]
    answer = shared.post("/v1/completions", ASK, headers={"Origin": MINE, "Authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    refused = shared.post("/v1/completions", ASK, headers={"Origin": MINE})
    assert refused.status_code == 401
    for response in (preflight, answer, refused):
        assert response.headers["access-control-allow-origin"] == MINE  # never a star
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80", "", "user@evil.example", "[::2]:80"]
)
def test_a_name_that_points_here_is_not_enough(server: Server, host: str) -> None:
    assert code(server.get("/v1/models", headers={"Host": host})) == "host"


def test_this_machines_own_names_are(server: Server) -> None:
    for host in ("localhost", "localhost:1", "127.0.0.1:65535", "[::1]:80", "[::1]"):
        assert server.get("/v1/models", headers={"Host": host}).status_code == 200


def test_every_answer_has_a_content_policy(shared: Server) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    json_type = {"Content-Type": "application/json", **key}
    answers = [
        shared.get("/health"),
        shared.get("/v1/models"),
        shared.get("/v1/models", headers=key),
        shared.get("/metrics", headers=key),
        shared.get("/openapi.json", headers=key),
        shared.get("/nothing", headers=key),
        shared.get("/v1/completions", headers=key),  # 405
        shared.post("/v1/completions", ASK, headers=key),
        shared.post("/v1/completions", {**ASK, "stream": True}, headers=key),
        shared.post("/v1/completions", {**ASK, "n": 0}, headers=key),
        shared.post("/v1/completions", {**ASK, "user": "x" * 30_000}, headers=key),
        httpx.post(f"{shared.url}/v1/completions", content=b"{", headers=json_type),
        httpx.post(f"{shared.url}/v1/completions", content=b"{}", headers=key),
        httpx.options(f"{shared.url}/v1/models", headers={"Origin": MINE}),
        shared.get("/v1/models", headers={**key, "Origin": "https://evil.example"}),
    ]
    assert {one.status_code for one in answers} >= {200, 204, 400, 401, 403, 404, 405, 413, 415}
    for one in answers:
        for name, value in HEADERS.items():
            assert one.headers[name] == value, f"{one.request.method} {one.request.url}: {name}"


def test_keys_are_compared_in_constant_time(shared: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    really = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        compared.append(a)
        return really(a, b)

    monkeypatch.setattr("trimtab.serve.guard.hmac.compare_digest", compare)
    for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {KEY}x"}, {"X-Secret-Key": KEY[:-1]}):
        assert code(shared.get("/v1/models", headers=headers)) == "invalid_api_key"
    assert compared == [b"", b"", f"{KEY}x".encode(), KEY[:-1].encode()]
    assert shared.get("/v1/models", headers={"X-Secret-Key": KEY}).status_code == 200
    assert len(compared) == 5


LOGGING = """
import sys
from pathlib import Path
from trimtab.serve.app import create_app
from trimtab.serve.run import listen
from trimtab.testing.planted import planted_world

world = planted_world()
app = create_app(world.model, [world.sae], recipes=Path(sys.argv[1]), key=sys.argv[2])

@app.get("/fails")
def fails():
    raise RuntimeError("a mistake")

listen(app, "127.0.0.1", 0, grace=1, ready=lambda url: print(url, flush=True))
"""


def test_keys_are_never_logged(tmp_path: Path) -> None:
    """Not with a mistake's traceback either, which does come."""
    command = [sys.executable, "-c", LOGGING, str(tmp_path), KEY]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    good, wrong = {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer x{KEY}"}
    assert httpx.get(f"{url}/fails", headers=good).status_code == 500
    assert httpx.get(f"{url}/v1/models", headers=wrong).status_code == 401
    assert httpx.get(f"{url}/{KEY}", headers=good).status_code == 404
    bad = httpx.post(f"{url}/v1/completions", json={**ASK, "user": KEY, "n": 0}, headers=good)
    assert bad.status_code == 400
    metrics = httpx.get(f"{url}/metrics", headers=good).text
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert "a mistake" in err
    assert KEY not in out + err + metrics


def test_a_body_that_does_not_come_is_not_waited_for(serving: Serving, world: PlantedWorld, tmp_path: Path) -> None:
    with serving(world.model, [], tmp_path, limits=Limits(seconds=0.3)) as server:
        head = "POST /v1/completions HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: 100"
        answer = raw(server, head, b'{"model"')
        assert b" 408 " in answer.partition(b"\r\n")[0]
        assert b'"code":"timeout"' in answer.replace(b": ", b":")


def test_a_client_that_goes_away_while_it_waits_frees_its_place(
    serving: Serving, world: PlantedWorld, tmp_path: Path
) -> None:
    limits = Limits(prompt_tokens=60, max_tokens=150, slots=1, queue=3)
    body = json.dumps({**ASK, "max_tokens": 150, "n": 2, "temperature": 0.1}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: {len(body)}"
    )
    with serving(world.model, [], tmp_path, limits=limits) as server:
        connections = [socket_to(server) for _ in range(2)]
        for connection in connections:
            connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        server.wait(lambda: server.service.worker.rows == 4)
        full = server.post("/v1/completions", ASK)
        assert (full.status_code, code(full)) == (503, "full")
        assert int(full.headers["retry-after"]) > 0
        for connection in connections:
            connection.close()
        server.wait(lambda: server.service.worker.rows == 0 and not server.service.worker.engine.busy)
        assert server.post("/v1/completions", ASK).status_code == 200


WAYS = ["socket", *(["curl"] if shutil.which("curl") else [])]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("streamed", [False, True])
def test_curl(server: Server, world: PlantedWorld, way: str, streamed: bool) -> None:
    """As docs/serve.md shows it; without curl on the machine, the bytes that it sends."""
    body = json.dumps({**ASK, "stream": streamed})
    if way == "curl":
        command = ["curl", "-sSN", f"{server.url}/v1/completions", "-H", "Content-Type: application/json", "-d", body]
        got = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    else:
        head = (
            f"POST /v1/completions HTTP/1.1\nHost: {urlsplit(server.url).netloc}\nUser-Agent: curl/8.0.0\nAccept: */*\n"
            f"Content-Type: application/json\nContent-Length: {len(body)}\nConnection: close"
        )
        got = raw(server, head, body.encode()).partition(b"\r\n\r\n")[2].decode()
    expected = generate(world.model, ASK["prompt"], seed=1, max_new_tokens=8)[0].text
    if streamed:
        pieces = [line.removeprefix("data: ") for line in got.splitlines() if line.startswith("data: ")]
        assert pieces.pop() == "[DONE]"
        assert "".join(json.loads(piece)["choices"][0]["text"] for piece in pieces) == expected
    else:
        assert json.loads(got)["choices"][0]["text"] == expected


def test_a_wrong_method_is_told_the_right_one(server: Server) -> None:
    response = server.get("/v1/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
