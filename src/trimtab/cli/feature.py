"""`trimtab feature`: everything about one feature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.cli.features import IndexFolder, open_chosen

EXAMPLES = """Examples:

\b
  trimtab feature 123
  trimtab feature 123 --index runs/index --html feature-123.html
  trimtab feature 123 --index runs/index --json
"""


def run(
    number: Annotated[int, typer.Argument(metavar="NUMBER", help="The feature's index.", show_default=False)],
    index_folder: IndexFolder = None,
    examples: Annotated[int, typer.Option("--examples", min=0, help="Examples of each kind to print.")] = 5,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write everything as one self-contained page.")
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Show what a feature fires on, weakly and strongly, what it promotes, and how often it fires."""
    index = open_chosen(index_folder)
    found = index.feature(number)
    if html is not None:
        from trimtab.index.page import write_page

        write_page(html, index, number)
        say(f"wrote {html}")
    if as_json:
        from dataclasses import asdict

        print_json(asdict(found))
        return
    from trimtab.index.show import show

    for part in show(found, examples):
        out().print(part)
