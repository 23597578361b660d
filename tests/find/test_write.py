"""Generated pairs, from a local server that speaks the OpenAI protocol and from the local model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from trimtab.errors import InputError, TrimtabError
from trimtab.find.write import first_sentence, pairs_from_endpoint, pairs_from_model, parse_pairs
from trimtab.testing.planted import PlantedWorld


class _Server:
    """A fake endpoint: `reply(body, turn)` gives (status, text of the message)."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Any = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.bodies.append(body)
                outer.keys.append(self.headers.get("Authorization"))
                status, text = outer.reply(body, len(outer.bodies) - 1)
                answer = (
                    {"choices": [{"message": {"role": "assistant", "content": text}}]}
                    if status == 200
                    else {"error": text}
                )
                self.send_response(status if self.path == "/v1/chat/completions" else 404)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def _pair(i: int) -> str:
    return json.dumps(
        {
            "positive": f"The ship number {i} sailed away over the sea.",
            "negative": f"The bus number {i} drove away over the hill.",
        }
    )


def test_pairs_come_from_the_endpoint_and_junk_is_asked_for_again(server: _Server) -> None:
    def reply(_: Any, turn: int) -> tuple[int, str]:
        good = [_pair(10 * turn + i) for i in range(6)]
        return 200, "\n".join(
            ["Sure, here they are:", "```json", *good, good[0], '{"positive": "too short", "negative": "x"}', "{"]
        )

    server.reply = reply
    said: list[str] = []
    found = pairs_from_endpoint("the sea", 15, url=server.url, model="writer-1", key="abc", say=said.append)
    assert len(found) == 15
    assert found.paired
    assert found.name == "the sea"
    assert len(set(found.positive)) == 15
    assert len(server.bodies) == 3
    assert server.keys == ["Bearer abc"] * 3
    assert server.bodies[0]["model"] == "writer-1"
    assert "the sea" in server.bodies[0]["messages"][0]["content"]
    assert [body["seed"] for body in server.bodies] == [0, 1, 2]
    assert said[-1] == "15 of 15 pairs"


@pytest.mark.parametrize(
    ("status", "text", "words"),
    [(401, "bad key", "401 Unauthorized.*bad key"), (200, "I would rather not.", "gave only 0 usable pairs of 8")],
)
def test_an_endpoint_that_does_not_deliver_is_an_error_for_people(
    server: _Server, status: int, text: str, words: str
) -> None:
    server.reply = lambda *_: (status, text)
    with pytest.raises(TrimtabError, match=words):
        pairs_from_endpoint("the sea", 8, url=server.url, model="m")


def test_an_endpoint_that_is_not_there(server: _Server) -> None:
    with pytest.raises(TrimtabError, match="cannot be reached"):
        pairs_from_endpoint("the sea", 8, url="http://127.0.0.1:9/v1", model="m", timeout=5)
    with pytest.raises(InputError, match="http or https"):
        pairs_from_endpoint("the sea", 8, url="file:///etc", model="m")
    with pytest.raises(InputError, match="in words"):
        pairs_from_endpoint(" ", 8, url=server.url, model="m")


def test_the_local_model_writes_pairs_from_templates(world: PlantedWorld) -> None:
    """The planted model writes only sentences such as "the cat found a bridge ."; every one must be of that kind."""
    found = pairs_from_model("boat", 8, world.model, seed=1)
    known = set(world.model.tokenizer.get_vocab())
    assert len(found) == 8
    for text in (*found.positive, *found.negative):
        assert text.endswith(".")
        assert 6 <= len(text.split()) <= 25
        assert set(text.split()) <= known
    assert found == pairs_from_model("boat", 8, world.model, seed=1)


def test_replies_in_lists_and_fences_are_read() -> None:
    assert parse_pairs("[" + _pair(1) + ",\n " + _pair(2) + "]") == parse_pairs(_pair(1) + "\n" + _pair(2))
    assert parse_pairs('{"positive": 3, "negative": "x"}') == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (' "The tide came in. Then it left."', "The tide came in."),
        ("\n\nWas it late? Yes.", "Was it late?"),
        ("no end in sight", ""),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_continuation(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence
