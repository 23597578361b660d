"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from trimtab.steer.recipe import Recipe


def out() -> Console:
    """The console for results. Made at each call, so that it follows a redirected stdout."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def err() -> Console:
    """The console for progress and messages."""
    return Console(stderr=True, highlight=False)


def say(message: str) -> None:
    """One line of progress, on stderr."""
    err().print(Text(message, style="dim"), soft_wrap=True)


def complain(message: str) -> None:
    """One line about what went wrong, on stderr."""
    err().print(Text(" ".join(message.split()), style="red"), soft_wrap=True)


def save_recipe(recipe: Recipe, path: Path | None) -> None:
    """Write a recipe file if one is asked for, and say so."""
    if path is not None:
        recipe.save(path)
        say(f"wrote {path}")


def print_json(value: Any) -> None:
    """`value` as indented JSON on stdout, and nothing else. NaN and infinity are refused."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
