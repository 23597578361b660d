"""The command line: parse, call, print. Each command imports what it needs when it runs."""

from __future__ import annotations

from trimtab.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the `trimtab` command."""
    app(prog_name="trimtab")
