"""What is released: wheel and sdist hold everything that the package needs, and nothing that it does not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import trimtab

ROOT = Path(__file__).parents[1]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# setuptools changes sys.argv, so the folder is read first
BUILD = "import sys; from setuptools import build_meta as b; out = sys.argv[1]; b.build_sdist(out); b.build_wheel(out)"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, built in a copy of what the build reads."""
    folder = tmp_path_factory.mktemp("package")
    tree, out = folder / "tree", folder / "out"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tree / "src", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, tree / name)
    out.mkdir()
    subprocess.run([sys.executable, "-c", BUILD, str(out)], cwd=tree, check=True, capture_output=True)
    return out


def test_the_wheel_has_every_file_of_the_package(built: Path) -> None:
    (file,) = built.glob("*.whl")
    inside = set(zipfile.ZipFile(file).namelist())
    here = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "trimtab").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here - inside == set()
    assert not [name for name in inside if not name.startswith(("trimtab/", f"trimtab-{trimtab.__version__}"))]
    assert file.stat().st_size < 100e6  # what package indexes take


def test_the_wheel_says_what_it_is(built: Path) -> None:
    (file,) = built.glob("*.whl")
    wheel = zipfile.ZipFile(file)
    folder = f"trimtab-{trimtab.__version__}.dist-info"
    about = message_from_bytes(wheel.read(f"{folder}/METADATA"))
    assert (about["Name"], about["Version"], about["License-Expression"]) == ("trimtab", ABOUT["version"], "Apache-2.0")
    assert set(about.get_all("Provides-Extra") or []) == set(ABOUT["optional-dependencies"])
    assert "trimtab = trimtab.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert {f"{folder}/licenses/LICENSE", f"{folder}/licenses/NOTICE"} <= set(wheel.namelist())


def test_the_sdist_can_be_built_again(built: Path, tmp_path: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    code = "import sys; from setuptools import build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tree, check=True, capture_output=True)
    first, again = next(built.glob("*.whl")), next(tmp_path.glob("*.whl"))
    assert set(zipfile.ZipFile(first).namelist()) == set(zipfile.ZipFile(again).namelist())


def test_versions_agree_and_the_changelog_knows_this_one() -> None:
    assert ABOUT["version"] == trimtab.__version__
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert trimtab.__version__ in headings[:2]


def test_the_lock_holds_what_the_package_requires() -> None:
    def pinned(name: str) -> set[str]:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {re.split("[=<>]", line)[0].lower().replace("_", "-") for line in lines if re.match(r"[A-Za-z]", line)}

    def named(requirements: list[str]) -> set[str]:
        return {re.split(r"[=<>\[]", one)[0].strip().lower().replace("_", "-") for one in requirements}

    assert named(ABOUT["dependencies"]) - pinned("requirements.lock") == set()
    dev = named(ABOUT["optional-dependencies"]["dev"])
    assert dev - pinned("requirements.lock") - pinned("requirements-dev.lock") == set()
