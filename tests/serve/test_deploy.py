"""The Dockerfile and the systemd unit name files, packages and options that are there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import typer

from trimtab.cli import app

ROOT = Path(__file__).parents[2]
DOCKER = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
UNIT = (ROOT / "docs" / "trimtab.service").read_text(encoding="utf-8")


def options(command: list[str]) -> dict[str, object]:
    """What `trimtab serve` understands of a command; fails for an option that it has not."""
    assert command[0].rpartition("/")[2] == "trimtab"
    serve = typer.main.get_command(app).commands[command[1]]  # type: ignore[attr-defined]
    return dict(serve.make_context("serve", command[2:]).params)


def test_the_container_copies_what_is_there() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKER, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}\n" in ignored


def test_the_container_installs_what_the_server_needs() -> None:
    pins = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8").lower()
    named = re.search(r"\^\(([^)]+)\)==", DOCKER)
    assert named
    for name in named.group(1).split("|"):
        assert f"\n{name}==" in pins
    extra = re.search(r"^serve = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert extra
    assert {re.split(r"[>=]", one)[0].replace("-", "_") for one in re.findall(r'"(.+?)"', extra.group(1))} <= set(
        named.group(1).split("|")
    )


def test_the_container_runs_as_nobody_in_particular_and_asks_for_a_key() -> None:
    user = re.findall(r"^USER (\S+)$", DOCKER, re.MULTILINE)
    assert user
    assert user[-1] not in ("0", "root")
    command = re.findall(r"^CMD (\[.+\])$", DOCKER, re.MULTILINE)[-1]
    chosen = options(json.loads(command))
    assert chosen["host"] == "0.0.0.0"  # which demands a key
    assert "/health" in DOCKER
    assert not re.search(r"https?://(?!127\.0\.0\.1)", DOCKER)


def test_the_unit_stops_after_the_grace_and_stays_on_this_machine() -> None:
    settings = dict(line.split("=", 1) for line in UNIT.splitlines() if "=" in line and not line.startswith("#"))
    chosen = options(shlex.split(settings["ExecStart"]))
    assert chosen["host"] == "127.0.0.1"
    assert float(str(chosen["grace"])) + 7 < float(settings["TimeoutStopSec"])
    assert (settings["DynamicUser"], settings["ProtectSystem"], settings["NoNewPrivileges"]) == ("yes", "strict", "yes")
