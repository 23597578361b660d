"""The OpenAPI description: what each route answers, and what is said of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict

from trimtab.serve.responses import ChatChunk, CompletionChunk, Error

Responses = dict[int | str, dict[str, Any]]

POSTED = (400, 408, 415)  # what may come of any body
WRITTEN = (404, 503, *POSTED)  # and of a request for texts
_ANY = (401, 403, 413)
_SAID = {
    400: "The request is not valid.",
    401: "The key is missing or wrong.",
    403: "The name in the Host header, or the origin of the page that asks, is not one of this server's.",
    404: "There is no such thing.",
    408: "It took longer than the server allows. Not worth trying again.",
    409: "It is there already, or something of its kind is running.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    429: "It would have to wait, and the request asks not to.",
    503: "The server is full, or shutting down.",
    507: "The disk is full.",
}
_RETRY = {"Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}}
_PARTS = "#/components/schemas/"
_REFERENCE = {"$ref": f"{_PARTS}Error"}
_TAGS = {
    "OpenAI": "What OpenAI's clients speak, with steering for each request.",
    "Neuronpedia": "What clients of Neuronpedia's inference server speak.",
    "Features": "What is known of features, and which fire in a text.",
    "Explore": "What the page shows: cards and lists of features, their map, readings of chosen ones.",
    "Recipes": "Recipe files of the server's folder.",
    "Jobs": "Long work: one job at a time.",
    "Server": "How the server is.",
}
_ABOUT = """Steered text from one language model, and what is known of its SAE's features.

Errors have OpenAI's shape, with a message that says what was given and what is valid. A server that asks for a key
takes it as `Authorization: Bearer KEY` or as `X-Secret-Key: KEY`. Bodies must be `application/json`; fields that are
not described here are refused."""


def documented(
    ok: str,
    model: type[BaseModel] | None = None,
    errors: Iterable[int] = (),
    events: type[BaseModel] | None = None,
    code: int = 200,
) -> Responses:
    """The `responses` of a route: the good one with its `model`, and errors. `events`: what a stream's events are."""
    good: dict[str, Any] = {"description": ok}
    if model is not None:
        good["model"] = model
    if events is not None:
        data = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"{_PARTS}{events.__name__}"},
            "description": f"A {events.__name__} as JSON, an Error, or [DONE].",
        }
        stream = {
            "type": "object",
            "required": ["data"],
            "properties": {"data": data},
            "description": "With `stream: true`: server-sent events, each with one line `data: ...`.",
        }
        good["content"] = {"text/event-stream": {"schema": stream}}
    found: Responses = {code: good}
    for status in sorted({*_ANY, *errors}):
        found[status] = {"description": _SAID[status], "content": {"application/json": {"schema": _REFERENCE}}}
        if status in (429, 503):
            found[status]["headers"] = _RETRY
    return found


def example(value: dict[str, Any]) -> ConfigDict:
    """The configuration of a body with an example."""
    return ConfigDict(json_schema_extra={"examples": [value]})


def openapi(app: FastAPI) -> dict[str, Any]:
    """The description, without the 422 that FastAPI has and this server does not."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            summary="Steered text, and what is known of SAE features.",
            description=_ABOUT,
            tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        )
        for path in made["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        parts = made.setdefault("components", {})
        for name in ("HTTPValidationError", "ValidationError"):
            parts.get("schemas", {}).pop(name, None)
        for shape in (Error, CompletionChunk, ChatChunk):  # which no route names as its answer
            made_of = shape.model_json_schema(ref_template=_PARTS + "{model}")
            parts["schemas"] |= made_of.pop("$defs") | {shape.__name__: made_of}
        parts["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "The server's key, where it asks for one."},
            "secret": {"type": "apiKey", "in": "header", "name": "X-Secret-Key", "description": "The same."},
        }
        made["security"] = [{}, {"bearer": []}, {"secret": []}]
        app.openapi_schema = made
    return app.openapi_schema
