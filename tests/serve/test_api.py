"""The server's own routes: activations, recipes, jobs, the door, limits, and a fuzz over the description."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError
from trimtab.index.search import firing
from trimtab.serve.limits import Limits
from trimtab.serve.run import check_door
from trimtab.steer.dose import measure_dose
from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

ASK = {"model": "planted", "prompt": "the cat saw", "max_tokens": 8, "seed": 1}
KEY = "a-long-enough-key"


def error(response: httpx.Response, status: int, code: str | None = None) -> str:
    """The message of an error, which must have OpenAI's shape."""
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert code is None or found["code"] == code
    return str(found["message"])


def test_activations_are_those_of_the_unsteered_model(server: Server, world: PlantedWorld) -> None:
    got = server.post("/api/activations", {"text": "the flame saw a dog", "most": 5}).json()
    tokens, found = firing(world.model, world.sae, "the flame saw a dog", most=5)
    assert got["tokens"] == tokens
    assert [one["feature"] for one in got["features"]] == [f.feature for f in found]
    for one, f in zip(got["features"], found, strict=True):  # another thread may add up in another order
        assert one["values"] == pytest.approx(list(f.values), rel=1e-4)
    assert "limit is 60" in error(server.post("/api/activations", {"text": "the cat " * 40}), 400)
    assert "no index" in error(server.get("/api/features/3"), 404, "no_index")


def test_recipes_are_created_used_and_deleted(server: Server, world: PlantedWorld) -> None:
    feature = world.concepts["sea"]
    new = {"id": "my-sea", "steering": {"features": [{"feature": feature, "strength": 1.5}]}}
    made = server.post("/api/recipes", new)
    assert made.status_code == 201
    recipe = Recipe.add(world.sae, {feature: 1.5})
    assert made.json()["digest"] == recipe.digest
    assert "my-sea" in server.get("/api/recipes").json()["recipes"]
    assert server.get("/api/recipes/my-sea").json() == made.json()
    for steering, factor in (("my-sea", 1), ({"recipe": "my-sea", "factor": -2}, -2)):
        answer = server.post("/v1/completions", {**ASK, "steering": steering}).json()
        expected = generate(world.model, ASK["prompt"], recipe * factor, max_new_tokens=8, seed=1)[0].text
        assert answer["choices"][0]["text"] == expected
    error(server.post("/api/recipes", new), 409, "recipe_exists")
    assert httpx.delete(f"{server.url}/api/recipes/my-sea").status_code == 204
    error(server.get("/api/recipes/my-sea"), 404, "recipe_not_found")
    error(server.post("/v1/completions", {**ASK, "steering": "my-sea"}), 404, "recipe_not_found")


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "A", ".hidden", "x" * 65, "%2e%2e%2fx", ""])
def test_an_id_is_never_a_path(server: Server, name: str) -> None:
    new = {"id": name, "steering": {"features": [{"feature": 1}]}}
    error(server.post("/api/recipes", new), 400)
    error(server.post("/v1/completions", {**ASK, "steering": {"recipe": name}}), 400)
    assert httpx.delete(f"{server.url}/api/recipes/{name}").status_code in (307, 400, 404, 405)


def finished(server: Server, path: str, body: Any) -> dict[str, Any]:
    begun = server.post(path, body)
    assert begun.status_code == 202, begun.text
    where = f"/api/jobs/{begun.json()['id']}"
    error(server.post(path, body), 409, "busy")
    written = server.post("/v1/completions", ASK)  # meanwhile
    assert written.status_code == 200
    server.wait(lambda: server.get(where).json()["state"] != "running")
    found: dict[str, Any] = server.get(where).json()
    return found


def test_a_dose_is_measured_while_texts_are_written(server: Server, world: PlantedWorld) -> None:
    feature = world.concepts["sea"]
    steering = {"features": [{"feature": feature, "strength": 1.0}]}
    job = finished(server, "/api/dose", {"steering": steering, "texts": 2})
    assert (job["state"], job["error"]) == ("done", None)
    expected = measure_dose(world.model, Recipe.add(world.sae, {feature: 1.0}), sae=world.sae, texts=2).as_dict()
    assert job["result"] == json.loads(json.dumps(expected))


def test_a_contrast_is_found_and_its_recipe_saved(server: Server, world: PlantedWorld) -> None:
    body = {"positive": world.texts("fire", 30), "negative": world.texts(None, 30), "paired": False, "save_as": "found"}
    job = finished(server, "/api/contrast", body)
    assert (job["state"], job["error"]) == ("done", None)
    found = {one["index"] for one in job["result"]["features"][0]}
    assert world.concepts["fire"] in found
    assert server.get("/api/recipes/found").json()["digest"] == job["result"]["recipe"]
    assert httpx.delete(f"{server.url}/api/recipes/found").status_code == 204


def test_a_job_is_stopped(server: Server, world: PlantedWorld) -> None:
    steering = {"features": [{"feature": world.concepts["sea"], "strength": 1.0}]}
    begun = server.post(
        "/api/verify", {"steering": steering, "prompts": ["the cat", "a dog", "every house"], "samples": 16}
    )
    where = f"/api/jobs/{begun.json()['id']}"
    assert httpx.delete(server.url + where).status_code == 200
    server.wait(lambda: server.get(where).json()["state"] == "cancelled")
    error(server.get("/api/jobs/none"), 404)


def test_limits(server: Server) -> None:
    assert "limit is 32" in error(server.post("/v1/completions", {**ASK, "n": 33}), 400, "too_many_texts")
    assert "limit is 150" in error(server.post("/v1/completions", {**ASK, "max_tokens": 151}), 400, "too_many_tokens")
    long = {**ASK, "prompt": "the cat " * 50}
    assert "limit is 60" in error(server.post("/v1/completions", long), 400, "context_length_exceeded")
    error(server.post("/v1/completions", {**ASK, "user": "x" * 30_000}), 413)
    pieces = iter([b'{"user": "', *[b"x" * 5000] * 6, b'"}'])
    chunked = httpx.post(f"{server.url}/v1/completions", content=pieces, headers={"Content-Type": "application/json"})
    error(chunked, 413, "too_large")
    assert "json" in error(httpx.post(f"{server.url}/v1/completions", content=b"{}"), 415).lower()
    error(server.post("/v1/completions", {**ASK, "model": "gpt-4"}), 404, "model_not_found")
    for wrong in ({"echo": True}, {"presence_penalty": 1}, {"temperature": -1}, {"nonsense": 1}, {"prompt": [1, 2]}):
        assert error(server.post("/v1/completions", {**ASK, **wrong}), 400)


def test_a_full_server_says_when_to_come_again(
    serving: Serving, world: PlantedWorld, tmp_path: Path
) -> None:  # fmt: skip
    tight = Limits(prompt_tokens=60, max_tokens=150, slots=1, queue=1, seconds=0.2)
    with serving(world.model, [], tmp_path, limits=tight) as server:
        response = server.post("/v1/completions", {**ASK, "n": 3})
        error(response, 503, "full")
        assert int(response.headers["retry-after"]) > 0
        late = server.post("/v1/completions", {**ASK, "n": 2, "max_tokens": 150})
        error(late, 408, "timeout")
        assert late.headers["x-should-retry"] == "false"
        server.wait(lambda: server.service.worker.rows == 0)


def test_a_key_is_asked_for_and_never_logged(
    serving: Serving, world: PlantedWorld, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(world.model, [], tmp_path, key=KEY, hosts=None) as server:
        assert server.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            error(server.get("/v1/models", headers=headers), 401, "invalid_api_key")
        assert server.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        metrics = server.get("/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
        assert 'trimtab_requests_total{path="/v1/models",status="200"} 1.0' in metrics
    assert KEY not in caplog.text + metrics


def test_the_door_of_other_machines_needs_a_key() -> None:
    assert check_door("127.0.0.1", None) == check_door("::1", None) == ("localhost", "127.0.0.1", "[::1]")
    assert check_door("0.0.0.0", KEY) is None
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(InputError, match="needs a key"):
            check_door(host, None)
    with pytest.raises(InputError, match="at least 16"):
        check_door("0.0.0.0", "short")


def test_pages_of_others_are_kept_out(server: Server) -> None:
    error(server.get("/v1/models", headers={"Host": "evil.example"}), 403, "host")
    error(server.get("/v1/models", headers={"Origin": "http://evil.example"}), 403, "origin")
    mine = server.get("/v1/models", headers={"Origin": server.url})
    assert mine.status_code == 200
    assert "default-src 'none'" in mine.headers["content-security-policy"]
    assert "access-control-allow-origin" not in mine.headers


def test_without_its_libraries_the_command_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fastapi'] = None; sys.argv = ['x', 'serve']; import trimtab.cli as c; c.main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip install 'trimtab[serve]'" in result.stderr


VALID = json.dumps({**ASK, "steering": {"features": [{"feature": 3, "strength": 0.5}], "scope": {"window": [0, 5]}}})
NASTY = (
    "", "null", "[]", "1e999", "NaN", '"x"', "[" * 9000, '{"a":' * 3000, '{"model": "planted", "model": 3}', "\ufeff{}",
    "{}{}",
    VALID.replace("the cat saw", "\\ud800"), VALID.replace("the cat saw", "\\u0000"), VALID.replace("0.5", "1e400"),
    VALID.replace("0.5", "-Infinity"), VALID.replace('"seed": 1', f'"seed": {10**400}'),
    VALID.replace("planted", "\U0001f600"),
)  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/steer/completion", "/api/activations", "/api/recipes"]
)
def test_no_bytes_break_the_server(server: Server, path: str) -> None:
    """What is no JSON, or nearly that; `bench/serve_fuzz.py` sends 10,000, and tests/serve/test_schema.py what fits."""
    pieces = st.lists(
        st.sampled_from([*'{}[]",:-+.eE0 ', "null", "NaN", "1e999", "\\ud800", '"prompt"', '"n"', "9" * 40])
    )
    cut = st.tuples(st.integers(0, len(VALID)), pieces, st.integers(0, 9)).map(
        lambda t: VALID[: t[0]] + "".join(t[1]) + VALID[t[0] + t[2] :]
    )
    quick = settings(
        max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
    )

    @quick
    @given(body=st.binary(max_size=60) | cut.map(str.encode) | st.sampled_from(NASTY).map(str.encode))
    def check(body: bytes) -> None:
        response = httpx.post(server.url + path, content=body, headers={"Content-Type": "application/json"}, timeout=30)
        if response.status_code != 200:
            assert response.status_code in (400, 404, 409, 413), response.text
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    check()
