"""What both replays share: stages that are kept, the pair to open, Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from trimtab.files import read_json, write_file, write_json
from trimtab.lm.model import Model
from trimtab.report.blocks import narrow, visible
from trimtab.sae.sae import SAE

Plain = dict[str, Any]
OPENINGS = ("Once upon a time", "The first thing I noticed was", "Yesterday")


_left: int | None = None


def allow(parts: int | None) -> None:
    """How many parts this run may make before it stops; None for all."""
    global _left
    _left = parts


def kept(folder: Path, name: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, from `folder`/NAME.json where an earlier run has left it; so a killed run goes on."""
    file = folder / f"{name}.json"
    if not file.is_file():
        global _left
        if _left is not None:
            if _left == 0:
                raise SystemExit(f"stopped before {name}; the same command goes on")
            _left -= 1
        print(f"{name} ...", flush=True)
        write_json(file, json.loads(json.dumps(make())))
    return read_json(file)


def claim(folder: Path, settings: Plain) -> None:
    """Refuse a folder that holds results of other settings."""
    there = kept(folder, "settings", lambda: settings)
    if there != json.loads(json.dumps(settings)):
        raise SystemExit(f"{folder} holds a run with other settings ({there}): choose another --out.")


def parser(about: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="gemma-3-270m", help="model to steer (default: %(default)s)")
    made.add_argument("--sae", default="gemma-3-270m", help="its SAE, by any name that trimtab opens")
    made.add_argument("--out", type=Path, required=True, help="folder of the results; a run that is there goes on")
    made.add_argument("--page", type=Path, help="write the page here, pictures beside it")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--parts", type=int, help="stop after so many parts; the same command goes on")
    return made


def open_pair(model: str, sae: str) -> tuple[Model, SAE]:
    from trimtab.lm.load import open_model
    from trimtab.sae.load import check_fits, open_sae

    opened = open_model(model), open_sae(sae)
    check_fits(opened[1], opened[0])
    return opened


def write_page(path: Path, text: str) -> None:
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; the first column to the left, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def interval(mean: float, low: float, high: float) -> str:
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def code(text: str) -> str:
    """Text of any kind as code in Markdown."""
    return "`" + visible(text).replace("`", "'").replace("|", "¦") + "`"


def block(text: str) -> str:
    """Text of any kind as a block of one line, which Markdown leaves alone."""
    return f"<pre>{escape(visible(text))}</pre>"


def marked(tokens: Sequence[str], strengths: Sequence[float], most: float) -> str:
    """Tokens with block elements after those where something fires, as a block."""
    return block(narrow(tokens, strengths, most or 1.0).plain)


def hidden(summary: str, body: str) -> str:
    """Something to open with a click."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"
