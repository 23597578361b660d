"""Build the documentation's site from docs/ with Zensical: `python tools/site.py [FOLDER]` (default: site).

Pages stay readable where they are, on their own. For the site a copy is made in which start.md is the first page, and
links that leave docs/ become the path that they point to. The site asks nobody for fonts or scripts, and opens from the
disk, where all but the search works (`python -m http.server -d site` has that too). A page that stands nowhere in `NAV`
is put under "More".
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RENAMED = {"start.md": "index.md", "index.md": "feature-index.md"}
# What would be fetched from the network so that search works from the disk; over HTTP it is not needed.
SHIM = re.compile(r'<script src="https://unpkg.com/[^"]*"[^>]*>\s*</script>')
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")

NAV: dict[str, dict[str, str] | str] = {
    "Start here": "start.md",
    "What the words mean": "concepts.md",
    "How to": {
        "Find features": "finding.md",
        "Steer": "steering.md",
        "Choose a dose": "dose.md",
        "Prove it": "evidence.md",
        "Judge texts": "judges.md",
        "Sweep, draw texts": "sweeps.md",
        "Run for long, on many machines": "scale.md",
        "Train an SAE": "training.md",
        "Index features": "index.md",
        "Serve": "serve.md",
        "Use recipes elsewhere": "formats.md",
    },
    "Two stories": {"A persona from ten pairs": "origin-a.md", "Four features": "origin-b.md"},
    "Questions": "faq.md",
    "Measured": {
        "Limits": "limits.md",
        "What steers best": "benchmark.md",
        "Finding": "finding-measured.md",
        "Performance": "performance.md",
    },
    "Reference": {"Command line": "cli.md", "Python": "reference.md", "Files": "files.md"},
    "Inside": {"How it is built": "design.md", "Add to it": "extending.md"},
}


def pages() -> list[Path]:
    """The pages of docs/, by name."""
    return sorted(DOCS.glob("*.md"))


def named(nav: dict[str, dict[str, str] | str]) -> Iterator[str]:
    """The files that a table of contents names."""
    for entry in nav.values():
        yield from entry.values() if isinstance(entry, dict) else (entry,)


def copied(text: str) -> str:
    """A page with links as the site has them; code is left alone."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(_linked, part) for part in parts)


def _linked(found: re.Match[str]) -> str:
    image, text, target = found.groups()
    path, _, anchor = target.partition("#")
    if "://" in target or not path:
        return found[0]
    if path.startswith("../"):
        outside = path.removeprefix("../")
        return text if text.strip("`") == outside else f"{text} (`{outside}`)"
    return f"{image}[{text}]({RENAMED.get(path, path)}{'#' + anchor if anchor else ''})"


def config() -> dict[str, Any]:
    """What Zensical is told."""
    more = [page.name for page in pages() if page.name not in set(named(NAV))]
    nav = {**NAV, **({"More": {name.removesuffix(".md"): name for name in more}} if more else {})}
    contents = [
        {title: [{name: RENAMED.get(file, file)} for name, file in entry.items()]}
        if isinstance(entry, dict)
        else {title: RENAMED.get(entry, entry)}
        for title, entry in nav.items()
        if isinstance(entry, dict) or (DOCS / entry).is_file()
    ]
    schemes = [("default", "light", "slate", "dark"), ("slate", "dark", "default", "light")]
    return {
        "site_name": "trimtab",
        "site_description": "Steer language models along sparse-autoencoder features, and prove what the steering did.",
        "docs_dir": "docs",
        "site_dir": "site",
        "use_directory_urls": False,
        "nav": contents,
        "theme": {
            "name": "material",
            "font": False,
            "features": ["navigation.sections", "navigation.top", "navigation.footer", "content.code.copy"],
            "palette": [
                {
                    "media": f"(prefers-color-scheme: {word})",
                    "scheme": scheme,
                    "toggle": {"icon": f"lucide/{'sun' if word == 'light' else 'moon'}", "name": f"Switch to {other}"},
                }
                for scheme, word, _, other in schemes
            ],
        },
        "plugins": ["search", "offline"],
        "extra_css": ["extra.css"],
        "markdown_extensions": ["tables", "attr_list", "def_list", "admonition", {"toc": {"permalink": True}},
                                "pymdownx.superfences", {"pymdownx.highlight": {"use_pygments": True}}],
    }  # fmt: skip


CSS = """/* Wide tables and long lines scroll in their own box; marks of a text do not break the page. */
.md-typeset pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.md-typeset .highlight pre { white-space: pre; }
.md-typeset table:not([class]) { font-size: .68rem; }
.md-typeset img { background: #fff; border-radius: .3rem; }
"""


def build(out: Path, work: Path) -> None:
    """Make the copy in `work` and the site in `out`; a broken link ends it with Zensical's own words."""
    source = work / "docs"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(DOCS, source)
    for old in RENAMED:
        (source / old).unlink()
    (source / "extra.css").write_text(CSS, encoding="utf-8")
    texts = {RENAMED.get(page.name, page.name): page.read_text(encoding="utf-8") for page in pages()}
    for name, text in texts.items():
        (source / name).write_text(copied(text), encoding="utf-8")
    (work / "mkdocs.yml").write_text(yaml.safe_dump(config(), sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(work / "mkdocs.yml")]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"The site could not be built:\n{done.stdout}{done.stderr}")
    for html in (work / "site").rglob("*.html"):
        html.write_text(SHIM.sub("", html.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(work / "site", out)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "site").resolve()
    build(target, ROOT / "build" / "site")
    print(f"wrote {target}/index.html")
