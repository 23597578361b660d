"""The folder of recipe files that requests name by id."""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.serve.limits import ApiError
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

END = ".recipe.safetensors"
_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class RecipeFolder:
    """Recipe files `ID.recipe.safetensors` in one folder. An id is a name and never a path."""

    def __init__(self, folder: Path, saes: Mapping[str, SAE], most: int) -> None:
        self.folder, self.saes, self.most = folder, saes, most
        self.lock = threading.Lock()

    def path(self, name: str) -> Path:
        """The file of an id. Raises `InputError` for what is no id."""
        if not _ID.fullmatch(name):
            raise InputError(
                f"{name[:80]!r} is not a recipe id: 1 to 64 of a-z, 0-9, dot, dash and underscore, the first a letter "
                "or digit."
            )
        return self.folder / f"{name}{END}"

    def names(self) -> list[str]:
        """The ids that are there, sorted."""
        found = (path.name.removesuffix(END) for path in self.folder.glob(f"*{END}") if path.is_file())
        return sorted(name for name in found if _ID.fullmatch(name))

    def load(self, name: str) -> Recipe:
        """The recipe of an id. Raises `ApiError` (404) when there is none, `FileError` for a damaged file."""
        path = self.path(name)
        if not path.is_file():
            raise ApiError(404, f"There is no recipe {name!r}.", code="recipe_not_found", param="recipe")
        return self.read(path, name)

    def read(self, path: Path, name: str) -> Recipe:
        """The recipe in a file, here or elsewhere. Raises `FileError`, which does not tell where the file is."""
        try:
            return Recipe.load(path)
        except MismatchError as error:  # latents of a TopK SAE depend on all of it
            for sae in self.saes.values():
                with suppress(MismatchError):
                    return Recipe.load(path, sae)
            raise error
        except FileError as error:
            raise FileError(
                f"The recipe {name!r} cannot be read: {str(error).replace(str(path), 'its file')}"
            ) from None

    def save(self, name: str, recipe: Recipe) -> None:
        """Write a new recipe. Raises `ApiError` (409) when the id is taken or the folder is full."""
        path = self.path(name)
        with self.lock:
            if path.exists():
                raise ApiError(409, f"There is a recipe {name!r} already; delete it first.", code="recipe_exists")
            if len(self.names()) >= self.most:
                raise ApiError(409, f"The folder is full: it holds {self.most} recipes.", code="folder_full")
            recipe.save(path)

    def delete(self, name: str) -> None:
        """Remove a recipe. Raises `ApiError` (404) when there is none."""
        with self.lock:
            try:
                self.path(name).unlink()
            except FileNotFoundError:
                raise ApiError(404, f"There is no recipe {name!r}.", code="recipe_not_found") from None
