"""Write docs/reference.md from the docstrings of the public names, or with --check say if it is stale (exit code 1).

Public are the names of `trimtab.__all__`, and what the documentation imports from other modules of the package.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import trimtab

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "reference.md"
IMPORT = re.compile(r"^\s*from (trimtab\.[\w.]+) import \(?([\w, ]+)", re.MULTILINE)


def page() -> str:
    """The whole page."""
    parts = [
        "# Reference\n",
        "Written by `make docs` from the docstrings. Do not edit by hand.\n",
        "## import trimtab\n",
        "Names load on first use: `import trimtab` imports neither torch nor transformers.\n",
    ]
    for name in trimtab.__all__:
        parts += _entry("trimtab", name)
    parts.append("## Other modules that the documentation uses\n")
    for module, name in sorted(_imported()):
        parts += _entry(module, name)
    return "\n".join(parts)


def _imported() -> set[tuple[str, str]]:
    pages = [file for file in sorted(DOCS.glob("*.md")) if file != PAGE]
    found = {
        (module, name.strip())
        for file in pages
        for module, names in IMPORT.findall(file.read_text(encoding="utf-8"))
        for name in names.split(",")
        if name.strip()
    }
    return {(module, name) for module, name in found if name not in trimtab.__all__}


def _entry(module: str, name: str) -> list[str]:
    value = getattr(importlib.import_module(module), name)
    if isinstance(value, Mapping):
        return [f"### {module}.{name}\n", f"By name: {', '.join(f'`{key}`' for key in value)}.\n"]
    parts = [f"### {module}.{name}\n", _signature(name, value), _text(value)]
    if inspect.isclass(value) and not issubclass(value, Exception):
        for key, member in _members(value):
            parts += [f"#### {name}.{key}\n", _signature(key, member), _text(member)]
    return parts


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """What the class itself defines, in its order; not what it inherits."""
    for key, raw in vars(kind).items():
        member = getattr(raw, "func", None) or getattr(raw, "fget", None) or getattr(raw, "__func__", raw)
        if key.startswith("_") or not inspect.isfunction(member) or not inspect.getdoc(member):
            continue
        yield key, raw


def _plain(value: Any) -> Any:
    return getattr(value, "func", None) or getattr(value, "fget", None) or getattr(value, "__func__", value)


def _signature(name: str, value: Any) -> str:
    """What the source says, so that defaults stand there by their names."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(_plain(value)))).body
    if isinstance(node, ast.ClassDef):
        above = ", ".join(ast.unparse(base) for base in node.bases)
        fields = [
            ast.unparse(one)
            for one in node.body
            if isinstance(one, ast.AnnAssign) and not ast.unparse(one.target).startswith("_")
        ]
        shown = "\n".join([f"class {name}({above})" if above else f"class {name}", *(f"    {one}" for one in fields)])
    else:
        assert isinstance(node, ast.FunctionDef)
        kind = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        marked = {ast.unparse(one) for one in node.decorator_list}
        if marked & {"property", "cached_property"}:
            shown = f"{name}: {ast.unparse(node.returns)}" if node.returns else name
        else:
            shown = _folded(f"{name}({ast.unparse(node.args)}){kind}")
    return f"```python\n{shown}\n```\n"


def _folded(shown: str) -> str:
    """A signature that is too long for a line has an argument on each."""
    if len(shown) <= 100:
        return shown
    head, rest = shown.split("(", 1)
    body, tail = rest.rsplit(")", 1)
    parts, depth, part = [], 0, ""
    for letter in body:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and depth == 0:
            parts.append(part.strip())
            part = ""
        else:
            part += letter
    return "\n".join([f"{head}(", *(f"    {one}," for one in [*parts, part.strip()] if one), f"){tail}"])


def _text(value: Any) -> str:
    """A docstring as Markdown: its indented blocks are code already; angle brackets are text."""
    return (inspect.getdoc(_plain(value)) or "").replace("<", "&lt;") + "\n"


def main() -> None:
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit("docs/reference.md is stale: run `make docs` and commit the result.")


if __name__ == "__main__":
    main()
