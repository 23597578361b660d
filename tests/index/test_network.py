"""The two clients against local servers that answer in the documented shapes. Nothing leaves this machine."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import FileError, InputError
from trimtab.index.endpoint import Labeller, spread
from trimtab.index.labels import Snippet, detection
from trimtab.index.neuronpedia import open_export, write_export
from trimtab.index.neuronpedia_api import Neuronpedia
from trimtab.index.records import Example
from trimtab.index.store import Index
from trimtab.testing.planted import PlantedWorld

Answer = tuple[int, bytes]


@contextmanager
def server(answer: Callable[[str, dict[str, str], Any], Answer]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            code, data = answer(self.path, dict(self.headers), json.loads(body) if body else None)
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = reply

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


def chat(text: str) -> Answer:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def test_labels_and_detection_by_an_endpoint(world: PlantedWorld, index: Index) -> None:
    asked: list[str] = []

    def answer(path: str, headers: dict[str, str], body: Any) -> Answer:
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == "Bearer secret"
        assert (body["model"], body["temperature"]) == ("m", 0)
        prompt = body["messages"][0]["content"]
        asked.append(prompt)
        return chat('"words of fire."' if len(asked) == 1 else "Sure: [1, 3]")

    feature = index.feature(world.concepts["fire"])
    with server(answer) as url:
        endpoint = Labeller(f"{url}/v1/", "m", "secret", pause=0)
        assert endpoint.explain(feature) == "words of fire"
        snippets = [Snippet(("flame",), True), Snippet(("x",), False), Snippet(("ash",), True), Snippet(("y",), False)]
        assert endpoint.judge("words of fire", snippets) == [True, False, True, False]
        assert detection("words of fire", snippets, endpoint.judge) == 1.0
    example = feature.examples[0]
    assert f"<<{example.tokens[example.at]}>>(10)" in asked[0]
    assert "1. flame\n2. x\n3. ash\n4. y" in asked[1]
    assert "words of fire" in asked[1]


def test_examples_are_dealt_from_all_bands() -> None:
    def example(number: int, low: float | None, kind: str) -> Example:
        return Example(kind, low, low and 2 * low, 1.0, "s", 0, 0, 0, 0, (number,), ("x",), (1.0,))

    given = [example(n, None, "top") for n in range(5)] + [example(n, 2.0, "band") for n in (0, 1, 7)]
    given += [example(8, 4.0, "band"), example(9, None, "random")]
    assert [e.ids[0] for e in spread(given, 5)] == [0, 1, 8, 2, 7]
    assert [e.ids[0] for e in spread(given, 99)] == [0, 1, 8, 2, 7, 3, 4]
    assert spread([], 3) == []


def test_endpoint_tries_again_and_then_says_what_happened() -> None:
    seen: list[int] = []

    def flaky(*_: object) -> Answer:
        seen.append(1)
        return chat("fine") if len(seen) == 3 else (503, b"")

    with server(flaky) as url:
        assert Labeller(url, "m", pause=0).ask("x") == "fine"
    with server(lambda *_: (401, b"")) as url, pytest.raises(FileError, match="HTTP 401"):
        Labeller(url, "m", pause=0).ask("x")
    with server(lambda *_: (200, b"{}")) as url, pytest.raises(FileError, match="does not answer like"):
        Labeller(url, "m", pause=0).ask("x")
    with server(lambda *_: chat("none of them")) as url, pytest.raises(FileError, match="list of numbers"):
        Labeller(url, "m", pause=0).judge("l", [])
    with pytest.raises(FileError, match="gave no answer"):
        Labeller("http://127.0.0.1:9", "m", pause=0, timeout=2).ask("x")


def test_neuronpedia_feature_and_search() -> None:
    row = {
        "modelId": "gpt2-small", "layer": "6-res-jb", "index": "650", "maxActApprox": 20.5, "frac_nonzero": 0.004,
        "pos_str": [" fire", " flame"], "pos_values": [1.5, 1.25], "neg_str": ["x"], "neg_values": [-1.0],
        "freq_hist_data_bar_values": [0.5, 1.5, 2.5], "freq_hist_data_bar_heights": [10, 4, 1],
        "topkCosSimIndices": [7], "topkCosSimValues": [0.5], "correlated_features_indices": [], "vector": [],
        "activations": [
            {"tokens": ["a", " fire"], "values": [0, 20.5], "maxValue": 20.5, "maxValueTokenIndex": 1, "binMin": -1,
             "binMax": -1, "binContains": -1},
            {"tokens": ["b", " ash"], "values": [0.5, 2.0], "maxValue": 2, "maxValueTokenIndex": 1, "binMin": 0.0,
             "binMax": 4.1, "binContains": 0.7, "qualifyingTokenIndex": 0},
        ],
        "explanations": [{"id": "e", "description": "fire words", "explanationModelName": "gpt-4o", "typeName": "t",
                          "scores": []}],
    }  # fmt: skip

    def answer(path: str, headers: dict[str, str], body: Any) -> Answer:
        assert headers["X-Api-Key"] == "k"
        if path == "/api/feature/gpt2-small/6-res-jb/650":
            return 200, json.dumps(row).encode()
        assert path == "/api/explanation/search"
        assert body == {"modelId": "gpt2-small", "layers": ["6-res-jb"], "query": "fire", "offset": 0}
        hit = {"index": "650", "layer": "6-res-jb", "description": "fire words", "cosine_similarity": 0.9}
        return 200, json.dumps({"results": [hit]}).encode()

    with server(answer) as url:
        site = Neuronpedia(site=url, key="k")
        found = site.feature("gpt2-small", "6-res-jb", 650)
        assert site.search("gpt2-small", ["6-res-jb"], "fire")[0]["index"] == "650"
        with pytest.raises(InputError, match="three characters"):
            site.search("gpt2-small", [], "fi")
    assert (found.index, found.max, found.density, found.count, found.mean) == (650, 20.5, 0.004, 15, None)
    assert found.histogram == ((0.5, 1.5, 10), (1.5, 2.5, 4), (2.5, 3.5, 1))
    assert [(e.kind, e.at, e.value, e.low) for e in found.examples] == [("top", 1, 20.5, None), ("band", 0, 0.5, 0.0)]
    assert found.lens is not None
    assert found.lens.promoted == ((" fire", 1.5), (" flame", 1.25))
    assert [(label.text, label.method) for label in found.labels] == [("fire words", "neuronpedia gpt-4o")]


def test_an_export_is_downloaded_page_by_page_and_only_once(index: Index, tmp_path: Path) -> None:
    made = write_export(index, tmp_path / "made", model_id="m", source_id="1-planted")
    files = {f"v1/m/1-planted/{p.relative_to(made)}": p.read_bytes() for p in sorted(made.rglob("*.gz"))}
    fetched: list[str] = []

    def answer(path: str, headers: dict[str, str], _: Any) -> Answer:
        assert "X-Api-Key" not in headers
        if path.startswith("/?"):
            prefix = path.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
            keys = [key for key in files if key.startswith(prefix)]
            more = "<NextContinuationToken>t+1</NextContinuationToken>" if "continuation-token" not in path else ""
            keys = keys if more else []
            found = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
            return 200, f'<ListBucketResult xmlns="http://s3">{found}{more}</ListBucketResult>'.encode()
        fetched.append(path)
        return 200, files[path[1:]]

    with server(answer) as url:
        source = Neuronpedia(exports=url, key="k")
        folder = source.download("m", "1-planted", tmp_path / "copy")
        assert list(open_export(folder).features()) == list(open_export(made).features())
        assert len(fetched) == 3
        source.download("m", "1-planted", folder)
        assert len(fetched) == 3
        with pytest.raises(FileError, match="has no export"):
            source.download("m", "2-other", tmp_path / "none")


def test_a_listing_cannot_name_files_outside_the_folder(tmp_path: Path) -> None:
    page = b"<L><Contents><Key>v1/m/s/features/../evil.sh</Key></Contents></L>"
    with server(lambda *_: (200, page)) as url, pytest.raises(FileError, match="does not have"):
        Neuronpedia(exports=url).download("m", "s", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_gzip_is_checked(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "batch-0.jsonl.gz").write_bytes(gzip.compress(b'{"modelId": "m"')[:-4])
    with pytest.raises(FileError, match="damaged"):
        open_export(tmp_path)
