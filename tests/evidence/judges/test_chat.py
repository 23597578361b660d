"""The judge behind an endpoint, against a local server; nothing leaves this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from trimtab.endpoint import Endpoint
from trimtab.errors import FileError, InputError
from trimtab.evidence.judges.chat import chat_judges, harmonic_mean, parse_digit
from trimtab.steer.generate import Record


@contextmanager
def server(answer: Callable[[str], str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = answer(body["messages"][0]["content"])
            data = json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/v1"
        made.shutdown()
        thread.join()


def record(text: str) -> Record:
    return Record("She went down to the", text, (), 0, recipe=None, seed=0, sample=0, finished="length")


def test_three_questions_a_text_and_answers_that_are_no_digit_are_unscored() -> None:
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        if "salt" not in question:
            return "It is hard to say: 1 or 2."
        if "this concept: the sea {now}" in question:
            return "2"
        return " 1.\n" if "She went down to the" in question else "[1]"

    with server(answer) as url:
        judges = {judge.name: judge for judge in chat_judges(Endpoint(url, "m", pause=0), "the sea {now}")}
        records = [record("harbour, and the salt {text} wind"), record("shops"), record("  ")]
        found = {name: judge(records) for name, judge in judges.items()}
    assert found["chat concept"] == [2, None, None]
    assert found["chat instruction"] == [1, None, None]
    assert found["chat fluency"] == [1, None, None]
    assert found["chat"] == [pytest.approx(3 / (1 / 2 + 1 + 1)), None, None]
    assert len(asked) == 6
    assert sum("She went down to the" in question for question in asked) == 2


def test_only_a_bare_digit_is_an_answer() -> None:
    assert [parse_digit(text) for text in ("0", " 2 ", "**1**", "(1).", "[[2]]")] == [0, 2, 1, 1, 2]
    assert [parse_digit(text) for text in ("3", "12", "1/2", "score: 1", "", "two", "1 or 2", "-")] == [None] * 8


def test_any_zero_is_zero_and_anything_missing_is_missing() -> None:
    assert harmonic_mean([2, 0, 2]) == 0
    assert harmonic_mean([2, None, 0]) is None
    assert harmonic_mean([1, 2]) == pytest.approx(4 / 3)


def test_what_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="in words"):
        chat_judges(Endpoint("http://127.0.0.1:9", "m"), " ")
    with pytest.raises(InputError, match="http or https"):
        Endpoint("file:///etc/passwd", "m")
    judge = chat_judges(Endpoint("http://127.0.0.1:9", "m", pause=0, timeout=2), "the sea")[0]
    with pytest.raises(FileError, match="cannot be reached"):
        judge([record("waves")])
