"""/api/recipes: create, list, read and delete recipe files."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.responses import JSONResponse, Response

from trimtab.serve.answers import documented
from trimtab.serve.service import Service
from trimtab.serve.steering import RecipeId, Wanted, recipe_of
from trimtab.spec import Spec
from trimtab.steer.recipe import Recipe

Name = Annotated[str, Path(description="The recipe's id.")]


class NewRecipe(Spec):
    """POST /api/recipes."""

    id: RecipeId
    steering: Wanted


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
    found: Any = documented("The recipe, or the ids of all.")
    created: Any = documented("The new recipe.", code=201)
    gone: Any = documented("It is gone.", code=204)

    @routes.get("/api/recipes", responses=found)
    def names() -> JSONResponse:
        """The ids of all recipes."""
        return JSONResponse({"recipes": service.recipes.names()})

    @routes.get("/api/recipes/{name}", responses=found)
    def read(name: Name) -> JSONResponse:
        """A recipe: its edits, and where it comes from."""
        return JSONResponse(describe(name, service.recipes.load(name)))

    @routes.post("/api/recipes", responses=created, status_code=201)
    def create(body: NewRecipe) -> JSONResponse:
        """Save what a `steering` field says under a new id."""
        recipe = recipe_of(body.steering, service.saes, service.recipes)
        recipe.compile(service.model)
        service.recipes.save(body.id, recipe.made_for(service.model))
        return JSONResponse(describe(body.id, service.recipes.load(body.id)), 201)

    @routes.delete("/api/recipes/{name}", responses=gone, status_code=204)
    def delete(name: Name) -> Response:
        """Remove a recipe."""
        service.recipes.delete(name)
        return Response(status_code=204)

    return routes
