"""The frame around every command: errors, exit codes, help and its page."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from trimtab.cli import app, models
from trimtab.cli.app import COMMANDS
from trimtab.errors import FileError
from trimtab.scale.folder import COMMAND

ROOT = Path(__file__).parents[2]
NAMES = [command.__name__.rpartition(".")[2] for command in COMMANDS]


def examples() -> list[tuple[str, list[str]]]:
    lines = [line.strip() for command in COMMANDS for line in command.EXAMPLES.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines if line.startswith("trimtab ")]
    return [(one[1], one[2 : one.index(">") if ">" in one else None]) for one in words]


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_and_an_example(name: str, run: Any) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"  trimtab {name}" in result.stdout.partition("Examples:")[2]
    assert "--json" in result.stdout


@pytest.mark.parametrize(("name", "words"), examples(), ids=lambda value: value if isinstance(value, str) else None)
def test_examples_are_valid_command_lines(name: str, words: list[str]) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(words))  # raises for an option that does not exist


def test_page_of_the_commands_is_fresh() -> None:
    result = subprocess.run([sys.executable, ROOT / "tools" / "cli_docs.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("raised", "code", "line"),
    [(FileError("No such file:\n x"), 2, "Error: No such file: x\n"), (KeyboardInterrupt(), 130, "Interrupted.\n")],
)
def test_errors_become_one_line_and_a_code(
    raised: BaseException, code: int, line: str, monkeypatch: pytest.MonkeyPatch, run: Any
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(models, "describe", fail)
    result = run("models")
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", line)


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(models, "describe", fail)
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(app, ["models"], catch_exceptions=False)


def test_unknown_command_is_bad_input(run: Any) -> None:
    result = run("stear")
    assert result.exit_code == 2
    assert "stear" in result.stderr


def test_version(run: Any) -> None:
    assert run("--version").stdout == "trimtab 0.1.0\n"


def test_words_of_a_command_end_with_it(run: Any) -> None:
    """What Python does after a command in the same process is not that command's run."""
    assert run("saes", "--json").exit_code == 0
    assert COMMAND.get() is None
    assert run("feature", "no number").exit_code == 2
    assert COMMAND.get() is None
