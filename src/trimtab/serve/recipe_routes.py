"""/api/recipes: create, list, read and delete recipe files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import JSONResponse, Response

from trimtab.serve.body import Body
from trimtab.serve.described import POSTED, documented, example
from trimtab.serve.responses import RecipeFile, RecipeNames
from trimtab.serve.service import Service
from trimtab.serve.steering import RecipeId, Wanted, recipe_of
from trimtab.steer.recipe import Recipe

Name = Annotated[str, Path(description="The recipe's id.")]


class NewRecipe(Body):
    """POST /api/recipes."""

    id: RecipeId
    steering: Wanted

    model_config = example({"id": "sea", "steering": {"features": [{"feature": 11330, "strength": 0.5}]}})


def describe(name: str, recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values."""
    return {
        "id": name,
        "digest": recipe.digest,
        "code": repr(recipe),
        "edits": [edit.spec.model_dump(mode="json") for edit in recipe.edits],
        "about": recipe.about.model_dump(mode="json"),
    }


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Recipes"])

    @routes.get("/api/recipes", responses=documented("The ids of all.", RecipeNames))
    def names() -> JSONResponse:
        """The ids of all recipes."""
        return JSONResponse({"recipes": service.recipes.names()})

    @routes.get("/api/recipes/{name}", responses=documented("The recipe.", RecipeFile, (400, 404)))
    def read(name: Name) -> JSONResponse:
        """A recipe: its edits, and where it comes from."""
        return JSONResponse(describe(name, service.recipes.load(name)))

    @routes.post(
        "/api/recipes",
        responses=documented("The new recipe.", RecipeFile, (404, 409, 507, *POSTED), code=201),
        status_code=201,
    )
    def create(body: NewRecipe) -> JSONResponse:
        """Save what a `steering` field says under a new id."""
        recipe = recipe_of(body.steering, service.saes, service.recipes)
        recipe.compile(service.model)
        service.recipes.save(body.id, recipe.made_for(service.model))
        return JSONResponse(describe(body.id, service.recipes.load(body.id)), 201)

    @routes.delete(
        "/api/recipes/{name}", responses=documented("It is gone.", None, (400, 404), code=204), status_code=204
    )
    def delete(name: Name) -> Response:
        """Remove a recipe."""
        service.recipes.delete(name)
        return Response(status_code=204)

    return routes
