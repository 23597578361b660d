"""The documentation: links lead somewhere, everything public is documented, the site builds and asks nobody."""

from __future__ import annotations

import html
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from click import Command, Group

import trimtab
from trimtab.cli import app
from trimtab.find.fit import DENSE, METHODS
from trimtab.steer.exchange.formats import FORMATS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))}
LINK = re.compile(r"\]\(([^)\s]+)\)")


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("name", [*PAGES, "../README.md", "../CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    folder = (DOCS / name).parent
    for link in LINK.findall(without_code((DOCS / name).read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = folder / path if path else DOCS / name
        assert target.exists(), f"{name} links to {link}"
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{name} links to {link}"


def test_every_page_can_be_reached() -> None:
    linked = {Path(link.partition("#")[0]).name for text in PAGES.values() for link in LINK.findall(text)}
    site = tool("site")
    assert set(PAGES) <= linked | set(site.named(site.NAV)), "a page that nothing leads to"
    assert set(site.named(site.NAV)) <= set(PAGES)


def test_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "api_docs.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_and_error_is_in_the_reference() -> None:
    missing = [name for name in trimtab.__all__ if f"### trimtab.{name}\n" not in PAGES["reference.md"]]
    assert missing == []


def test_every_command_and_option_is_on_the_page_of_commands() -> None:
    def walk(words: str, command: Command) -> list[str]:
        missing = [] if f"## {words}\n" in PAGES["cli.md"] or words == "trimtab" else [words]
        section = PAGES["cli.md"].partition(f"## {words}\n")[2].partition("\n## ")[0]
        for parameter in command.params if words != "trimtab" else []:
            missing += [f"{words} {name}" for name in parameter.opts if name.startswith("--") and name not in section]
        for name, inside in command.commands.items() if isinstance(command, Group) else ():
            missing += walk(f"{words} {name}", inside)
        return missing

    assert walk("trimtab", typer.main.get_command(app)) == []


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))  # type: ignore[attr-defined]
def test_every_command_is_shown_in_some_guide(command: str) -> None:
    guides = {name: text for name, text in PAGES.items() if name not in ("cli.md", "design.md")}
    assert [name for name, text in guides.items() if f"trimtab {command}" in text]


def test_every_file_format_is_documented() -> None:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    ours = set(re.findall(r'"(trimtab\.[a-z_]+/\d+)"', sources))
    assert len(ours) >= 4
    assert [name for name in ours if name not in PAGES["files.md"]] == []
    assert [name for name in FORMATS if name not in PAGES["files.md"] or name not in PAGES["formats.md"]] == []


def test_every_way_to_fit_is_in_the_reference() -> None:
    assert [name for name in (*METHODS, *DENSE) if f"`{name}`" not in PAGES["reference.md"]] == []


def test_numbers_of_the_limits_stand_on_the_pages_that_measured_them() -> None:
    items = re.findall(r"^- (.+?)(?=\n- |\n\n|\Z)", PAGES["limits.md"], re.DOTALL | re.MULTILINE)
    for item in items:
        linked = [PAGES[link.partition("#")[0]] for link in LINK.findall(item) if link.partition("#")[0] in PAGES]
        numbers = re.findall(r"[+-]?\d+\.\d+%?", LINK.sub("]", item))
        for number in numbers:
            assert any(number in text for text in linked), f"{number} in: {item}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    tool("site").build(folder / "out", folder / "work")
    return folder / "out"


def test_the_site_is_whole_and_asks_nobody(built: Path) -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in built.glob("*.html")}
    assert len(pages) == len(PAGES) + 1  # and a page for what is not there
    assert "Start here" in pages["index.html"]
    ids = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"|<link[^>]* href="([^"]+)"', text)
        for one in (a or b for a, b in loaded):
            assert not one.startswith(("http:", "https:", "//")), f"{name} loads {one}"
            assert name == "404.html" or (built / one).is_file(), f"{name} loads {one}"
        for link in map(html.unescape, re.findall(r'<a [^>]*?href="([^"]+)"', text)):
            path, _, anchor = link.partition("#")
            if name == "404.html" or re.match(r"[a-z]+:", link):
                continue
            target = (path or name).removeprefix("./")
            assert (built / target).is_file(), f"{name} links to {link}"
            assert not anchor or target not in ids or anchor in ids[target], f"{name} links to {link}"
    assert not re.search(rb"url\(['\"]?(https?:)?//", b"".join(css.read_bytes() for css in built.rglob("*.css")))
