"""What an import costs: heavy libraries are loaded by the functions that need them, not before."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "sae_lens", "numpy", "datasets", "pyarrow", "sklearn", "matplotlib")


def loaded_by(code: str) -> set[str]:
    """Top-level modules loaded by running `code` in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint('LOADED', *sorted({{name.partition('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(result.stdout.rpartition("LOADED ")[2].split())


HELP = "from trimtab.cli import app\ntry: app(['{command}', '--help'], standalone_mode=False)\nexcept SystemExit: pass"


@pytest.mark.parametrize(
    "code",
    [
        "import trimtab",
        "import trimtab; trimtab.Site(layer=3), trimtab.Scope(), trimtab.Sampling(), trimtab.InputError",
        "from trimtab.cli import app; app(['--help'], standalone_mode=False)",
        *(HELP.format(command=name) for name in ("demo", "steer", "verify", "train", "models", "saes")),
    ],
)
def test_loads_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & set(HEAVY)


def test_import_alone_loads_no_third_party_module() -> None:
    assert not loaded_by("import trimtab") & {*HEAVY, "pydantic", "typer", "rich"}


def test_the_test_can_fail() -> None:
    assert "numpy" in loaded_by("import numpy")


def test_listing_commands_need_no_torch() -> None:
    for command in ("models", "saes"):
        assert "torch" not in loaded_by(f"from trimtab.cli import app; app(['{command}'], standalone_mode=False)")
