"""Write docs/cli.md from the commands' --help, or with --check say whether it is stale (exit code 1)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Fixed before typer looks at the terminal, so that the page is the same everywhere.
os.environ.update({"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"})

from typer.testing import CliRunner

from trimtab.cli.app import COMMANDS, app

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"


def page() -> str:
    """The whole page."""
    pages: list[list[str]] = [[]]
    for command in COMMANDS:
        name = command.__name__.rpartition(".")[2]
        inside = command.group.registered_commands if hasattr(command, "group") else []
        pages += [[name], *([name, one.name or one.callback.__name__] for one in inside if one.callback)]
    parts = ["# The command line\n\nWritten by `make docs` from the commands' own help. Do not edit by hand.\n"]
    for words in pages:
        title = " ".join(["trimtab", *words])
        parts.append(f"## {title}\n\n```text\n{_help(words)}\n```\n")
    return "\n".join(parts)


def _help(words: list[str]) -> str:
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="trimtab")
    if result.exit_code != 0:
        raise SystemExit(f"`trimtab {' '.join(words)} --help` failed:\n{result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip().splitlines())


def main() -> None:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/cli.md is stale: run `make docs` and commit the result.")


if __name__ == "__main__":
    main()
