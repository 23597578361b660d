"""`trimtab doctor`: is everything there, and does it fit together?"""

from __future__ import annotations

import typer
from rich.text import Text

from trimtab.cli.console import out, print_json
from trimtab.cli.options import Json

EXAMPLES = """Examples:

\b
  trimtab doctor
  trimtab doctor --json
"""

MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "broken": ("BROKEN", "bold red")}


def run(as_json: Json = False) -> None:
    """Say what is installed, on which device models run, what is cached and where, and what is wrong.

    Notes are things worth knowing, such as an extra that is not installed. Exit code 1 when something that trimtab
    needs is broken, each with advice. Looks only: nothing is downloaded, converted or changed.
    """
    from trimtab.cli.checkup import examine

    found = examine()
    broken = [one for one in found if one.state == "broken"]
    if as_json:
        print_json({"healthy": not broken, "findings": [vars(one) for one in found]})
    else:
        console = out()
        group = ""
        for one in found:
            if one.group != group:
                group = one.group
                console.print(Text(group, style="bold"))
            word, style = MARKS[one.state]
            console.print(Text.assemble(f"  {one.name:<21}", (f"{word:<7}", style), one.said))
            if one.advice:
                console.print(Text(f"{'':30}{one.advice}", style=style))
        console.print(Text(f"{len(broken)} broken." if broken else "Nothing is broken."))
    if broken:
        raise typer.Exit(1)
