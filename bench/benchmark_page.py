"""Write the tables and the picture of docs/benchmark.md from a benchmark's folder; the prose around them stays.

    trimtab bench -o runs/bench ...
    python bench/benchmark_page.py runs/bench docs/benchmark.md

The table goes to bench/results/benchmark.json too, and its picture to docs/img/benchmark.svg.
"""

from __future__ import annotations

import sys
from pathlib import Path

from page import put
from tables import table

from trimtab.evidence.benchmark.methods import METHODS
from trimtab.evidence.benchmark.table import Row, Table, picture, tabulate
from trimtab.evidence.benchmark.units import cells_of
from trimtab.evidence.stats import interval
from trimtab.files import read_json, write_file, write_json
from trimtab.scale.store import open_store

OURS = "find"
RESULTS = Path(__file__).parent / "results" / "benchmark.json"


def main() -> None:
    """Read, draw, write."""
    folder, page = map(Path, sys.argv[1:3])
    found = whole(folder)
    write_json(RESULTS, found.model_dump(mode="json"))
    with write_file(page.parent / "img" / "benchmark.svg") as part:
        part.write_bytes(picture(found))
    text = page.read_text("utf-8")
    for name, inside in (
        ("methods", found.markdown().rstrip()), ("against", against(found)), ("concepts", concepts(found)),
        ("about", table(["method", "what it is"], [[name, METHODS[name].about] for name in _names(found)])),
    ):  # fmt: skip
        text = put(text, name, inside, "bench/benchmark_page.py")
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


def whole(folder: Path) -> Table:
    """The table of all that the folder has scores of, whichever runs they came from."""
    scores = [read_json(path) for path in (folder / "scores").glob("*.json")]
    names, budgets = ({one[key] for one in scores if one[key]} for key in ("concept", "budget"))
    return tabulate(open_store(folder), cells_of(sorted(names), list(METHODS), sorted(budgets)))


def against(found: Table) -> str:
    """What `find` has more than each other method at the same budget (or than one without), paired by concept."""
    rows = []
    for ours in (row for row in found.rows if row.method == OURS):
        for other in found.rows:
            if other.method == OURS or other.budget not in (None, ours.budget):
                continue
            names = [name for name in ours.by_concept if name in other.by_concept]
            mine, theirs = ([_known(row, name) for name in names] for row in (ours, other))
            gap = interval([a - b for a, b in zip(mine, theirs, strict=True)], names)
            wins = sum(a > b for a, b in zip(mine, theirs, strict=True))
            rows.append([
                f"{ours.budget:g}", other.method, f"{sum(mine) / sum(theirs):.2f}",
                f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]", f"{wins} of {len(names)}",
            ])  # fmt: skip
    return table(["KL", "`find` against", "times its score", "difference (95 %)", "concepts above"], rows)


def concepts(found: Table) -> str:
    """The score of each method on each concept."""
    names = list(found.rows[0].by_concept)
    rows = [[_label(row), *(f"{_known(row, name):.2f}" for name in names)] for row in found.rows]
    return table(["score", *names], rows)


def _names(found: Table) -> list[str]:
    used = {row.method for row in found.rows}
    return [name for name in METHODS if name in used]


def _label(row: Row) -> str:
    return row.method if row.budget is None else f"{row.method} @{row.budget:g}"


def _known(row: Row, name: str) -> float:
    return row.by_concept[name] or 0.0


if __name__ == "__main__":
    main()
