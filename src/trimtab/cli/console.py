"""Where output goes: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from trimtab.steer.parts import Cost
    from trimtab.steer.recipe import Recipe


WORDS: ContextVar[tuple[str, ...]] = ContextVar("WORDS", default=())
"""The words of the command that is running, for reports that say how to be made again."""

_WIDTH = 110  # where there is no terminal to ask, and in pictures


def out(*, record: bool = False) -> Console:
    """The console for results. Made at each call, so that it follows a redirected stdout.

    Away from a terminal, long texts stay on one line each, so that other programs can read them.
    """
    seen = sys.stdout.isatty()
    width = _WIDTH if record or not seen else None
    return Console(soft_wrap=not (seen or record), highlight=False, record=record, width=width)


def err(*, record: bool = False) -> Console:
    """The console for progress and messages."""
    return Console(stderr=True, highlight=False, record=record, width=_WIDTH if record else None)


def typed() -> str:
    """The command as it was typed, quoted for a shell."""
    return shlex.join(["trimtab", *WORDS.get()])


def save_svg(console: Console, path: Path, title: str) -> None:
    """Write everything that a recording console has shown as a picture."""
    from trimtab.files import write_file

    with write_file(path) as part:
        part.write_text(console.export_svg(title=title), encoding="utf-8")
    say(f"wrote {path}")


def say(message: str) -> None:
    """One line of progress, on stderr."""
    err().print(Text(message, style="dim"), soft_wrap=True)


def complain(message: str) -> None:
    """One line about what went wrong, on stderr."""
    err().print(Text(" ".join(message.split()), style="red"), soft_wrap=True)


def command_line() -> str:
    """The command that is running, as one would type it."""
    return shlex.join(["trimtab", *sys.argv[1:]])


def save_recipe(recipe: Recipe, path: Path | None) -> None:
    """Write a recipe file if one is asked for, and say so."""
    if path is not None:
        recipe.save(path)
        say(f"wrote {path}")


def print_json(value: Any) -> None:
    """`value` as indented JSON on stdout, and nothing else. NaN and infinity are refused."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def say_cost(texts: int, cost: Cost, as_json: bool) -> None:
    """What a dry run answers: texts in all, and what is left of them to write."""
    if as_json:
        print_json(
            {
                "rows": texts,
                "rows_left": cost.rows,
                "tokens_left": cost.tokens,
                "tokens_per_second": cost.rate,
                "seconds_left": cost.seconds,
            }
        )
        return
    print(f"{texts:,} texts, {cost.rows:,} of them to write: at most {cost.tokens:,} tokens")
    if cost.rows:
        print(f"about {_duration(cost.seconds)} at {cost.rate:.0f} tokens/s, as measured here and now")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
