"""`trimtab demo` is thin: the demonstration itself is in trimtab.evidence.demo and tested there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.text import Text

from trimtab.cli import demo as command
from trimtab.evidence import demo as demonstration


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the demonstration is called with; it says two things, with progress between them."""
    seen: list[dict[str, Any]] = []

    def demonstrate(model: Any, sae: Any, say: Any, **settings: Any) -> Any:
        seen.append({"model": model, "sae": sae, **settings})
        say(Text("sea: feature 5"))
        settings["progress"]("writing", 3, 9)
        say(Text("works", style="bold green"))
        return SimpleNamespace(to_json=lambda: json.dumps({"worked": 2}))

    monkeypatch.setattr(demonstration, "demonstrate", demonstrate)
    monkeypatch.setattr(command, "open_pair", lambda *names, need_sae: (f"model {names[0]}", f"SAE {names[1]}"))
    return seen


def test_text_on_stdout_progress_on_stderr_and_a_picture(run: Any, calls: list[dict[str, Any]], tmp_path: Path) -> None:
    page, picture = tmp_path / "page.html", tmp_path / "demo.svg"
    result = run("demo", "--samples", 3, "--seed", 4, "--html", page, "--svg", picture)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "sea: feature 5\nworks\n"
    assert "writing" in result.stderr
    (call,) = calls
    assert (call["model"], call["sae"]) == ("model gemma-3-270m", "SAE gemma-3-270m")
    assert (call["samples"], call["seed"], call["page"]) == (3, 4, page)
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.startswith("<svg")
    assert "works" in drawn


def test_json_is_alone_on_stdout(run: Any, calls: list[dict[str, Any]]) -> None:
    result = run("demo", "--json")
    assert json.loads(result.stdout) == {"worked": 2}
    assert "sea: feature 5" in result.stderr
