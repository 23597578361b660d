"""`trimtab doctor`: what is broken is found, has advice, and ends with exit code 1; nothing heavy is imported."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trimtab.cli import checkup
from trimtab.cli.checkup import Finding
from trimtab.sae import shipped


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def found(check: Any) -> dict[str, Finding]:
    return {one.name: one for one in check()}


def test_a_sound_installation_is_healthy(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "CHECKS", (checkup.machine, checkup.cache, checkup.shipped))
    result = run("doctor")
    assert result.exit_code == 0, result.stdout
    assert result.stdout.endswith("Nothing is broken.\n")
    assert "gemma-3-270m-block-9" in result.stdout
    said = json.loads(run("doctor", "--json").stdout)
    assert said["healthy"] is True
    assert {one["name"]: one["state"] for one in said["findings"]}["python"] == "ok"


def test_what_is_broken_ends_with_1_and_advice(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> Iterator[Finding]:
        yield Finding("packages", "required", "broken", "torch is missing", "Install it.")

    monkeypatch.setattr(checkup, "CHECKS", (check,))
    result = run("doctor")
    assert result.exit_code == 1
    assert "torch is missing" in result.stdout
    assert "Install it." in result.stdout
    assert result.stdout.endswith("1 broken.\n")
    assert json.loads(run("doctor", "--json").stdout)["healthy"] is False


def installed_as(monkeypatch: pytest.MonkeyPatch, version: str, *requires: str) -> dict[str, Finding]:
    """The findings about packages, were this what is installed as trimtab."""
    extras = SimpleNamespace(get_all=lambda name: ["map"] if name == "Provides-Extra" else None)
    mine = SimpleNamespace(version=version, requires=list(requires), metadata=extras)
    others = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: mine if name == "trimtab" else others(name))
    return found(checkup.packages)


def test_packages_that_are_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    about = installed_as(monkeypatch, "0.1.0", "numpy>=1", "torch>=99", "not-there-at-all", 'nor-this; extra == "map"')
    assert about["trimtab"].state == "ok"
    assert about["required"].state == "broken"
    assert "torch is 2" in about["required"].said
    assert "not-there-at-all is missing" in about["required"].said
    assert (about["extra map"].state, about["extra map"].said) == ("note", "nor-this is missing")
    assert "pip install 'trimtab[map]'" in str(about["extra map"].advice)
    about = installed_as(monkeypatch, "0.0.1", "numpy>=1", 'pytest; extra == "map"')
    assert about["trimtab"].state == "broken"
    assert (about["required"].state, about["extra map"].state) == ("ok", "ok")


def test_threads_that_wait_for_each_other() -> None:
    assert checkup._threads(4, None).state == "ok"
    assert checkup._threads(4, "4").state == "ok"
    assert "set it to 4" in str(checkup._threads(4, "16").advice)
    assert "not a number" in str(checkup._threads(4, "many").advice)


def test_the_model_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sae_folder: Path) -> None:
    assert "converted on first use" in found(checkup.cache)["gemma-3-270m"].said
    folder = tmp_path / "cache" / "models" / "gemma-3-270m-v1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    shutil.copy(sae_folder / "sae_weights.safetensors", folder / "model.safetensors")
    assert found(checkup.cache)["gemma-3-270m"].state == "ok"
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 7)
    cut = found(checkup.cache)["gemma-3-270m"]
    assert (cut.state, cut.said) == ("broken", "damaged: model.safetensors is cut short by 7 bytes")
    assert str(folder) in str(cut.advice)
    (folder.parent / ".gemma-3-270m-v1.abc").mkdir()
    assert found(checkup.cache)["leftovers"].state == "note"
    assert checkup._default_model(tmp_path / "none", True, 10**9).state == "broken"
    assert checkup._default_model(tmp_path / "none", False, 10**12).state == "broken"
    (tmp_path / "hub" / "models--openai-community--gpt2").mkdir(parents=True)
    assert "openai-community/gpt2" in found(checkup.cache)["Hugging Face"].said


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkup.tempfile, "TemporaryFile", refuse)
    assert found(checkup.cache)["folder"].state == "broken"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("sae_weights.safetensors", "sae_weights.safetensors is cut short"),
        ("features.safetensors", "features.safetensors is missing"),
        ("index/index.json", "index/index.json is missing"),
        ("index/words/00000.parquet", "index/words/00000.parquet is cut short"),
    ],
)
def test_a_damaged_package(
    file: str, said: str, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "saes" / "own"
    shutil.copytree(sae_folder, copy)
    (copy / "index" / "words").mkdir(parents=True)
    (copy / "index" / "index.json").write_text("{}")
    (copy / "index" / "words" / "00000.parquet").write_bytes(b"PAR1 ... PAR1")
    monkeypatch.setattr(shipped, "SHIPPED", copy.parent)
    assert found(checkup.shipped)["own"].state == "ok"
    if "cut short" in said:
        (copy / file).write_bytes((copy / file).read_bytes()[:-1])
    else:
        (copy / file).unlink()
    broken = found(checkup.shipped)["own"]
    assert broken.state == "broken"
    assert broken.said.startswith(said)
    assert "reinstall" in str(broken.advice)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from trimtab.cli.checkup import machine, packages, cache, shipped\n"
        "for check in (machine, packages, cache, shipped): list(check())\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'sae_lens', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(shell: str) -> None:
    def complete(words: str) -> str:
        inside = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))} if shell == "bash" else {}
        other = {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
        asked = {**os.environ, **(inside or other), "_TRIMTAB_COMPLETE": f"complete_{shell}"}
        code = "from trimtab.cli import app; app(prog_name='trimtab')"
        return subprocess.run([sys.executable, "-c", code], env=asked, capture_output=True, text=True).stdout

    assert "doctor" in complete("trimtab do")
    assert "steer" not in complete("trimtab do")
    assert "--max-new-tokens" in complete("trimtab steer --max")
