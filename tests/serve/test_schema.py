"""schemathesis over the description: whatever is sent, the answer is a documented one and never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from trimtab.index.build import build
from trimtab.index.lens import add_lens
from trimtab.index.spec import IndexSpec
from trimtab.index.store import open_index
from trimtab.serve.limits import Limits
from trimtab.serve.responses import ChatChunk, CompletionChunk
from trimtab.spec import Spec
from trimtab.testing.planted import PlantedWorld, planted_world

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance,
    response_headers_conformance,
]  # fmt: skip
EXAMPLES = 12
GOOD = {  # statuses of which one must have been seen
    "POST /api/recipes": {201}, "DELETE /api/recipes/{name}": {204, 404}, "POST /api/contrast": {202, 409},
    "POST /api/verify": {202, 409}, "POST /api/dose": {202, 409}, "GET /v1/models/{name}": {404},
    "GET /api/recipes/{name}": {200, 404}, "GET /api/recipes/{name}/file": {200, 404}, "POST /api/recipe-files": {400},
    "GET /api/map": {404}, "GET /api/sets/{name}": {404},
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    """One that speaks in conversations."""
    made = planted_world()
    made.model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}."
    return made


@pytest.fixture(scope="module")
def indexed(serving: Serving, world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    corpus = folder / "texts.txt"
    corpus.write_text("\n\n".join(world.texts("fire", 20) + world.texts(None, 20)), encoding="utf-8")
    index = build(world.model, world.sae, [str(corpus)], folder / "index", IndexSpec(context=32, tokens=None))
    add_lens(world.model, world.sae, index)
    limits = Limits(prompt_tokens=60, max_tokens=40, rows=16, slots=8, queue=40, body_bytes=20_000, seconds=30)
    with serving(
        world.model, [world.sae], folder / "recipes", index=open_index(folder / "index"), limits=limits
    ) as one:
        one.post("/api/recipes", {"id": "sea", "steering": {"features": [{"feature": world.concepts["sea"]}]}})
        yield one


@pytest.fixture(scope="module")
def operations(indexed: Server) -> dict[str, Any]:
    schema = schemathesis.openapi.from_dict(indexed.get("/openapi.json").json())
    found = [one.ok() for one in schema.get_all_operations()]
    return {f"{one.method.upper()} {one.path}": one for one in found}


def fitted(body: Any, world: PlantedWorld) -> Any:
    """A body that asks for the model that is there, and for little: one that gets past the first checks."""
    if not isinstance(body, dict):
        return body
    small = {"model": "planted", "max_tokens": 3, "nCompletionTokens": 3, "n": 1, "texts": 0, "samples": 2}
    fitted = {key: small.get(key, value) for key, value in body.items()}
    if "passages" in body:
        return {"passages": [{"prompt": "the cat", "text": " saw"}], "features": [3]}
    if "features" in body and isinstance(body["features"], list):
        known = {"model": "planted", "source": "planted", "index": 3}
        fitted["features"] = [{**one, **known} for one in body["features"] if isinstance(one, dict)]
    for side, concept in (("positive", "sea"), ("negative", None)):
        if side in body:
            fitted[side] = world.texts(concept, 10)
    if "steering" in body:
        fitted["steering"] = {"features": [{"feature": world.concepts["sea"], "strength": 1.0}]}
    return fitted


def test_every_answer_is_a_documented_one(indexed: Server, operations: dict[str, Any], world: PlantedWorld) -> None:
    assert len(operations) >= 30
    for name, operation in operations.items():
        seen = set(answers(indexed, operation, world))
        expected = GOOD.get(name, {404} if "/api/jobs/" in name else {200})
        assert seen & expected, f"{name}: only {seen}"


def answers(server: Server, operation: Any, world: PlantedWorld) -> list[int]:
    """The statuses of what schemathesis sends to one operation; fails for an answer that is not documented."""
    seen: list[int] = []

    def check(case: Any) -> None:
        response = case.call(base_url=server.url, timeout=30)
        seen.append(response.status_code)
        case.validate_response(response, checks=CHECKS)

    quick = settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )

    @quick
    @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def good(case: Any) -> None:
        check(case)
        case.body = fitted(case.body, world)
        check(case)

    @quick
    @given(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def bad(case: Any) -> None:
        check(case)

    good()
    if operation.method.upper() == "POST":
        bad()
    return seen


@pytest.mark.parametrize("chat", [False, True])
def test_every_event_of_a_stream_is_what_is_described(indexed: Server, chat: bool) -> None:
    kind: type[Spec] = ChatChunk if chat else CompletionChunk
    path = "/v1/chat/completions" if chat else "/v1/completions"
    text: Any = (
        {"messages": [{"role": "user", "content": "the cat"}], "logprobs": True} if chat else {"prompt": "the cat"}
    )
    more = {"model": "planted", "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    steered = {"steering": "sea", "receipt": True, "n": 2}
    lines = [line for line in indexed.post(path, {**text, **more, **steered}).text.split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    assert len(lines) > 10
    for line in lines:
        kind.model_validate_json(line.removeprefix("data: "))
