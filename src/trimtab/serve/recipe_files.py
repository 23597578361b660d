"""Recipe files over HTTP: download one of the server's, or bring one along."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from trimtab.errors import InputError
from trimtab.serve.body import Body
from trimtab.serve.described import POSTED, documented, example
from trimtab.serve.recipe_routes import Name, describe
from trimtab.serve.recipes import END
from trimtab.serve.responses import RecipeFile
from trimtab.serve.service import Service
from trimtab.serve.steering import RecipeId


class RecipeUpload(Body):
    """POST /api/recipe-files."""

    id: RecipeId
    file: Annotated[str, Field(max_length=50_000_000, description="A recipe file (safetensors), in base64.")]

    model_config = example({"id": "sea", "file": "eyJfX21ldGFkYXRhX18i..."})


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Recipes"])
    sent = documented("The file.", errors=(400, 404))
    sent[200]["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    created = documented("The new recipe.", RecipeFile, (409, 507, *POSTED), code=201)

    @routes.get("/api/recipes/{name}/file", responses=sent, response_class=Response)
    def download(name: Name) -> Response:
        """The recipe file itself, which works without this server."""
        service.recipes.load(name)
        content = service.recipes.path(name).read_bytes()
        headers = {"Content-Disposition": f'attachment; filename="{name}{END}"'}
        return Response(content, media_type="application/octet-stream", headers=headers)

    @routes.post("/api/recipe-files", responses=created, status_code=201)
    async def upload(body: RecipeUpload) -> JSONResponse:
        """Save a recipe file under a new id. It must be made for this server's model."""
        return JSONResponse(await run_in_threadpool(_take, service, body), 201)

    return routes


def _take(service: Service, body: RecipeUpload) -> dict[str, Any]:
    try:
        content = base64.b64decode(body.file, validate=True)
    except ValueError:
        raise InputError("The file is not base64.") from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{body.id}{END}"
        path.write_bytes(content)
        recipe = service.recipes.read(path, body.id)
    recipe.compile(service.model)
    service.recipes.save(body.id, recipe)
    return describe(body.id, service.recipes.load(body.id))
