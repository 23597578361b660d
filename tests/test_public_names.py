"""The one public namespace: what is promised exists, is documented, and is known to type checkers."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import trimtab

# Everything later builds on these; a name that goes away breaks other people's code.
PROMISED = {
    "Asked",
    "ContrastSet",
    "Evidence",
    "FileError",
    "Finding",
    "InputError",
    "MismatchError",
    "Model",
    "Recipe",
    "Record",
    "SAE",
    "Sampling",
    "Scope",
    "Site",
    "StorageError",
    "SweepSpec",
    "TrimtabError",
    "UnsupportedError",
    "ask",
    "generate",
    "open_model",
    "open_sae",
    "sweep",
    "verify",
}


def test_all_lists_the_promised_names_in_order() -> None:
    assert set(trimtab.__all__) == PROMISED
    assert trimtab.__all__ == sorted(trimtab.__all__)
    assert set(trimtab.__all__) <= set(dir(trimtab))


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_name_is_there_and_documented(name: str) -> None:
    value = getattr(trimtab, name)
    assert value.__name__ == name
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", ["Recipe", "Model", "SAE", "Evidence", "Record"])
def test_public_methods_are_documented(name: str) -> None:
    kind = getattr(trimtab, name)
    members = {key: value for key, value in vars(kind).items() if not key.startswith("_")}
    functions = {key: getattr(value, "func", value) for key, value in members.items()}
    undocumented = [key for key, value in functions.items() if callable(value) and not inspect.getdoc(value)]
    assert undocumented == []


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(trimtab.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert seen == trimtab._HOME


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'trimtab' has no attribute 'nonsense'"):
        _ = trimtab.nonsense  # type: ignore[attr-defined]


def test_every_error_can_be_caught_as_one() -> None:
    errors = [getattr(trimtab, name) for name in PROMISED if name.endswith("Error")]
    assert all(issubclass(error, trimtab.TrimtabError) for error in errors)
