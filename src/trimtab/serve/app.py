"""The server put together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response

from trimtab import __version__
from trimtab.errors import StorageError, TrimtabError
from trimtab.serve import explore, features, jobs, neuronpedia, openai, recipe_files, recipe_routes, reports, site
from trimtab.serve.described import documented, openapi
from trimtab.serve.guard import LOCAL, Guard
from trimtab.serve.limits import ApiError, Limits
from trimtab.serve.metrics import Metrics
from trimtab.serve.recipes import RecipeFolder
from trimtab.serve.responses import Health
from trimtab.serve.service import Service
from trimtab.serve.worker import Worker

if TYPE_CHECKING:
    from trimtab.index.store import Index
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

STOPPED: dict[int | str, Any] = {503: {"model": Health, "description": "The thread that runs the model is gone."}}
_log = logging.getLogger("trimtab.serve")


def create_app(
    model: Model,
    saes: Sequence[SAE] = (),
    *,
    recipes: Path,
    index: Index | None = None,
    limits: Limits | None = None,
    key: str | None = None,
    hosts: Collection[str] | None = LOCAL,
    origins: Collection[str] = (),
    grace: float = 20.0,
) -> FastAPI:
    """An ASGI application that serves `model`; while it runs, nothing else may use the model.

    `recipes` is the folder of recipe files. `index` belongs to the first SAE. `key`, `hosts`, `origins`: see `Guard`.
    `grace`: seconds that texts under way get to finish when the server stops.
    """
    limits = limits or Limits()
    worker = Worker(model, limits)
    by_name = {sae.name: sae for sae in saes}
    metrics = Metrics(worker)
    folder = RecipeFolder(recipes, by_name, limits.recipes)
    service = Service(model, by_name, index, folder, limits, worker, metrics)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop(grace)

    app = FastAPI(title="trimtab", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    for part in (openai, neuronpedia, features, explore, recipe_routes, recipe_files):
        app.include_router(part.router(service))
    running = jobs.Jobs(service)
    for routes in (jobs.router(service, running), reports.router(running), site.router()):
        app.include_router(routes)
    _add_own(app, service)
    _add_errors(app)
    app.add_middleware(
        Guard, key=key, hosts=hosts, origins=origins, limits=limits, metrics=metrics
    )  # fmt: skip
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    return app


def _add_own(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["Server"], responses=documented("It runs.", Health) | STOPPED)
    async def health() -> JSONResponse:
        """Whether the server runs. Needs no key."""
        alive = service.worker.thread.is_alive()
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)

    @app.get("/metrics", tags=["Server"], responses=documented("Counters as text."), response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_errors(app: FastAPI) -> None:
    """Every error in OpenAI's shape."""

    def reply(error: ApiError) -> JSONResponse:
        return JSONResponse(_encodable(error.body()), error.status, headers=error.more_headers())

    async def api(_request: Request, error: Any) -> Response:
        return reply(error)

    async def input_error(_request: Request, error: Any) -> Response:
        return reply(ApiError(507 if isinstance(error, StorageError) else 400, str(error)))

    async def invalid(_request: Request, error: Any) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return reply(ApiError(400, f"{where}: {first['msg']}" if where else first["msg"], param=where or None))

    async def http(_request: Request, error: Any) -> Response:
        answer = reply(ApiError(error.status_code, str(error.detail)))
        answer.headers.update(error.headers or {})  # such as Allow
        return answer

    async def gone(_request: Request, _error: Any) -> Response:
        return Response(status_code=499)

    async def bug(request: Request, error: Any) -> Response:
        _log.error("%s failed", request.url.path, exc_info=error)
        return reply(ApiError(500, "The server made a mistake; its log says more.", code="internal_error"))

    for kind, handler in (
        (ApiError, api),
        (TrimtabError, input_error),
        (RequestValidationError, invalid),
        (HTTPException, http),
        (ClientDisconnect, gone),
        (Exception, bug),
    ):
        app.add_exception_handler(kind, handler)


def _encodable(value: Any) -> Any:
    """Texts without lone surrogates, which a message may quote from a request and no answer can hold."""
    if isinstance(value, dict):
        return {key: _encodable(one) for key, one in value.items()}
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
