"""The page at /: static files, written as plain modules, that ask this server and nobody else."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from trimtab.serve.limits import ApiError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class File(NamedTuple):
    """A file of the page as it is sent."""

    content: bytes
    headers: dict[str, str]


def router() -> APIRouter:
    """The routes. No part of the API, so not in its description; they need no key and say nothing of the server."""
    routes = APIRouter(include_in_schema=False)
    known = {one.name: _file(one.name, one.read_bytes()) for one in (files(__package__) / "page").iterdir()}

    @routes.get("/")
    async def start(request: Request) -> Response:
        return _send(request, known["index.html"])

    @routes.get("/page/{name}")
    async def part(request: Request, name: str) -> Response:
        if name not in known:
            raise ApiError(404, f"The page has no part {name[:80]!r}.")
        return _send(request, known[name])

    return routes


def _file(name: str, content: bytes) -> File:
    return File(
        content,
        {
            "Content-Type": _KINDS[name.rpartition(".")[2]],
            "Content-Security-Policy": POLICY,
            "Cache-Control": "no-cache",
            "ETag": f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        },
    )


def _send(request: Request, file: File) -> Response:
    if request.headers.get("if-none-match") == file.headers["ETag"]:
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
