"""The OpenAPI description leaves nothing out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from trimtab.serve import explore, jobs, neuronpedia_schema, recipe_files, recipe_routes, schema
from trimtab.serve.app import create_app
from trimtab.spec import Spec
from trimtab.testing.planted import PlantedWorld

DOC = Path(__file__).parents[2] / "docs" / "serve.md"
OPERATION = {"description", "operationId", "responses", "summary", "tags"}


@pytest.fixture(scope="module")
def app(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return create_app(world.model, [world.sae], recipes=tmp_path_factory.mktemp("recipes"))


@pytest.fixture(scope="module")
def description(app: Any) -> dict[str, Any]:
    made: dict[str, Any] = app.openapi()
    return made


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_is_described(app: Any, description: dict[str, Any]) -> None:
    described = {name for name, _ in operations(description)}
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(("/v1", "/api", "/health", "/metrics")):
            path = route.path.replace(":path}", "}")
            assert {f"{method} {path}" for method in route.methods} <= described
    page = DOC.read_text(encoding="utf-8")
    for name in described:
        shape = re.sub(r"\{.*?\}", "[A-Z]+", name.partition(" ")[2])
        assert re.search(shape, page), f"docs/serve.md does not speak of {name}"


def test_every_operation_says_what_it_does_takes_and_answers(description: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in description["tags"]}
    for name, operation in operations(description):
        assert set(operation) >= OPERATION, name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{name}: {parameter['name']}"
        statuses = set(operation["responses"])
        assert {"401", "403", "413"} <= statuses, name
        if name.startswith("POST"):
            assert {"400", "408", "415"} <= statuses, name
            body = operation["requestBody"]["content"]["application/json"]["schema"]
            shape = description["components"]["schemas"][body["$ref"].rpartition("/")[2]]
            assert shape.get("examples") or shape["title"].startswith("Steer"), f"{name}: no example"
        for status, response in operation["responses"].items():
            assert response["description"], name
            schema_of = response.get("content", {}).get("application/json", {}).get("schema", {})
            if status >= "400" and name != "GET /health":
                assert schema_of == {"$ref": "#/components/schemas/Error"}, f"{name}: {status}"
            elif status == "200" and not name.endswith(("metrics", "/file", "/report")):
                assert "$ref" in schema_of, f"{name}: its answer has no shape"


def test_whatever_may_stream_says_so(description: dict[str, Any]) -> None:
    streams = {
        name for name, operation in operations(description)
        if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    }  # fmt: skip
    takes = {
        name for name, operation in operations(description)
        if "stream" in fields(description, operation.get("requestBody", {}).get("content", {}))
    }  # fmt: skip
    assert streams == takes
    assert {"POST /v1/completions", "POST /v1/steer/completion"} <= streams


def fields(description: dict[str, Any], content: dict[str, Any]) -> set[str]:
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    return set(description["components"]["schemas"].get(reference.rpartition("/")[2], {}).get("properties", ()))


def test_every_field_is_described(description: dict[str, Any]) -> None:
    missing = []
    for name, shape in description["components"]["schemas"].items():
        if not shape.get("description"):
            missing.append(name)
        for field, inner in shape.get("properties", {}).items():
            if not inner.get("description") and "$ref" not in inner:  # else it says what the shape says
                missing.append(f"{name}.{field}")
    assert not missing


@pytest.mark.parametrize(
    "kind",
    [
        schema.CompletionRequest, schema.ChatRequest, recipe_routes.NewRecipe, jobs.ContrastRequest, jobs.VerifyRequest,
        jobs.DoseRequest, explore.ReadingsRequest, recipe_files.RecipeUpload,
        neuronpedia_schema.SteerCompletionRequest, neuronpedia_schema.SteerChatRequest,
    ],
)  # fmt: skip
def test_examples_are_valid(kind: type[Spec]) -> None:
    shape = kind.model_json_schema()
    for one in shape.get("examples", ()):
        kind.parse(one)
    for name, field in shape["properties"].items():
        for one in field.get("examples", ()):
            assert kind.__pydantic_validator__.validate_assignment(kind.model_construct(), _field(kind, name), one)


def _field(kind: type[Spec], alias: str) -> str:
    return next(name for name, field in kind.model_fields.items() if alias in (name, field.alias))
