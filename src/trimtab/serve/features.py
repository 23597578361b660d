"""/api/features and /api/activations: what is known of features, and which fire where in a text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from trimtab.index.search import find, firing
from trimtab.index.store import Index
from trimtab.serve.body import Body
from trimtab.serve.described import WRITTEN, documented, example
from trimtab.serve.feature_responses import ActivationsFound, Feature, Hits
from trimtab.serve.limits import ApiError
from trimtab.serve.service import Service

Most = Annotated[int, Query(ge=1, le=200, description="How many to list.")]


class ActivationsRequest(Body):
    """POST /api/activations."""

    text: Annotated[str, Field(min_length=1, description="The text to read, by the unsteered model.")]
    most: Annotated[int, Field(ge=1, le=200, description="How many features to list.")] = 20

    model_config = example({"text": "She opened the door and smelled bread."})


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Features"])

    def index() -> Index:
        if service.index is None:
            raise ApiError(404, "This server has no index of its SAE's features (see --index).", code="no_index")
        return service.index

    @routes.get("/api/features/search", responses=documented("What was found.", Hits, (400, 404)))
    def search(
        q: Annotated[str, Query(min_length=1, max_length=200, description="Words to look for.")], most: Most = 20
    ) -> JSONResponse:
        """Features whose labels, firing tokens, promoted tokens or examples have these words, best first."""
        with service.index_lock:
            return JSONResponse({"features": [asdict(hit) for hit in find(index(), q, most=most)]})

    @routes.get("/api/features/{number}", responses=documented("The feature.", Feature, (400, 404)))
    def feature(number: Annotated[int, Path(description="The feature's index.")]) -> JSONResponse:
        """Everything that the index knows of a feature."""
        known = index()
        if not 0 <= number < known.features:
            raise ApiError(404, f"There is no feature {number}; valid: 0 to {known.features - 1}.", param="number")
        with service.index_lock:
            return JSONResponse(asdict(known.feature(number)))

    @routes.post("/api/activations", responses=documented("What fires.", ActivationsFound, WRITTEN))
    async def activations(body: ActivationsRequest) -> JSONResponse:
        """The tokens of a text and the features that fire in it, each with its activation on every token."""
        sae = next(iter(service.saes.values()), None)
        if sae is None:
            raise ApiError(404, "This server has no SAE.", code="no_sae")
        ids = await run_in_threadpool(service.model.encode_prompt, body.text)
        if len(ids) > service.limits.prompt_tokens:
            raise ApiError(
                400,
                f"The text has {len(ids)} tokens; the limit is {service.limits.prompt_tokens}.",
                code="context_length_exceeded",
                param="text",
            )

        def work() -> tuple[list[str], list[Any]]:
            with service.index_lock:
                return firing(service.model, sae, body.text, service.index, most=body.most)

        tokens, found = await service.between_steps(work)
        return JSONResponse({"tokens": tokens, "features": [asdict(one) for one in found]})

    return routes
