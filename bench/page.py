"""Write the tables of docs/performance.md from the JSON of the benchmarks; the prose between them stays.

python bench/page.py bench/results docs/performance.md
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import tables
from goals import goals

from trimtab.files import write_file

RENDER = {name: getattr(tables, name) for name in ("engine", "overhead", "steps", "sweep", "curves", "rows", "tried")}


def main() -> None:
    """Put every table whose JSON is there between its two marks."""
    folder, page = map(Path, sys.argv[1:3])
    text = page.read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for name in RENDER:
        file = folder / f"{name}.json"
        if file.exists():
            found[name] = json.loads(file.read_text(encoding="utf-8"))
    for name, said in found.items():
        text = put(text, name, RENDER[name](said))
    text = put(text, "goals", goals({name: said["results"] for name, said in found.items()}))
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


def put(page: str, name: str, inside: str, by: str = "bench/page.py") -> str:
    """The page with `inside` between the marks of `name`."""
    start, end = f"<!-- {name}: written by {by} -->", f"<!-- end of {name} -->"
    new = f"{start}\n{inside}\n{end}"
    page, n = re.subn(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: new, page, flags=re.DOTALL)
    if n != 1:
        raise SystemExit(f"the page has no place for {name}")
    return page


if __name__ == "__main__":
    main()
