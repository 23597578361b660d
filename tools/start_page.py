"""Run the commands of docs/start.md and write what they print below them, or with --check say where the page differs.

Blocks after a line `<!-- run -->` are run, all in one folder. Needs the default model; half a minute on one core.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from typer.testing import CliRunner

from trimtab.cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "start.md"
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)


def commands(block: str) -> list[str]:
    """The commands of a block: its lines that start with `$ `."""
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


def output(command: str) -> str:
    """What a command prints on stdout, without spaces at the ends of lines."""
    words = shlex.split(command)
    assert words[0] == "trimtab", command
    result = CliRunner().invoke(app, words[1:], prog_name="trimtab", catch_exceptions=False)
    if result.exit_code != 0:
        raise SystemExit(f"`{command}` failed:\n{result.stdout}{result.stderr}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def renewed(text: str) -> str:
    """The page with what its commands print now."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return BLOCK.sub(lambda found: _filled(found[1]), text)
        finally:
            os.chdir(here)


def _filled(block: str) -> str:
    parts = [f"$ {command}\n{output(command)}".rstrip() for command in commands(block)]
    return "<!-- run -->\n```console\n" + "\n\n".join(parts) + "\n```"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    now = renewed(text)
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(now, encoding="utf-8")
    elif now != text:
        sys.exit("docs/start.md differs from what its commands print: run `python tools/start_page.py`.")


if __name__ == "__main__":
    main()
