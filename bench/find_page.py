"""Write the tables and the answers of docs/finding-measured.md from the results; the prose between them stays.

python bench/find_page.py bench/results docs/finding-measured.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import find_tables as tables
from find_methods import SMALL
from find_sets import names
from page import put

from trimtab.files import write_file

WORDS = {"more": "Yes", "less": "No, it does worse", "neither": "Not measurably", "unknown": "Not measured"}


def answers(lines: tables.Lines) -> str:
    """The questions, each answered by a rule from the interval of a mean difference over sets."""
    shifts = lines.shifts
    asked = [
        ("Does a cluster do more than the single best feature (by gain)?", shifts(tables.BEST),
         shifts("one feature, by gain")),
        ("Does a cluster do more than all 32 features together?", shifts(tables.BEST), shifts("mean_difference")),
        ("Do 32 features do more than the single best one (by gain)?", shifts("mean_difference"),
         shifts("one feature, by gain")),
        ("Does the choice on dev among feature, clusters and all 32 do more than all 32?", shifts(tables.FOUND),
         shifts("mean_difference")),
        ("Is the best feature by gain better than the one of largest effect?", shifts("one feature, by gain"),
         shifts("one feature, by effect")),
        ("Does per-prompt least squares do more than nothing (a random direction)?", shifts("per_prompt"),
         shifts(tables.CONTROL)),
        ("Does per-prompt least squares do more than the mean difference on the same features?", shifts("per_prompt"),
         shifts("mean_difference")),
        ("Does ridge do more than the mean difference on the same features?", shifts("ridge"),
         shifts("mean_difference")),
        ("Does a logistic fit do more than the mean difference on the same features?", shifts("logistic"),
         shifts("mean_difference")),
        ("Do 32 features do as much as the dense mean difference (CAA)?", shifts("mean_difference"), shifts("caa")),
        ("Do features at two blocks do more than at one?", shifts("32 features, both", part="layers"),
         shifts("mean_difference")),
        ("Does CAA at two blocks do more than at one?", shifts("caa, both", part="layers"), shifts("caa")),
        ("Does CAA at four blocks do more than at one?", shifts("caa, four sites", part="layers"), shifts("caa")),
    ]  # fmt: skip
    for n, fewer in ((30, 10), (100, 30), (300, 100)):
        for arm, label in (("caa", "CAA"), ("mean_difference", "32 features")):
            asked.append((f"Do {n} texts a side do more than {fewer}, with {label}?",
                          tables.pairs_of(lines, arm, n, ""), tables.pairs_of(lines, arm, fewer, "")))  # fmt: skip
    rows = []
    for question, one, other in asked:
        said, verdict = tables.difference(one, other)
        rows.append([question, WORDS[verdict], said])
    return tables.table([f"at KL {SMALL}", "answer", "mean difference of the shifts"], rows)


def main() -> None:
    """Put every table whose results are there between its marks."""
    folder, page = map(Path, sys.argv[1:3])
    text = page.read_text(encoding="utf-8")
    lines = folder / "find_methods.jsonl"
    if lines.exists():
        found = tables.Lines(lines)
        for name in ("methods", "by_set", "regression", "layers", "pairs", "choices"):
            text = put(text, name, getattr(tables, name)(found))
        text = put(text, "answers", answers(found))
        text = put(text, "measured", tables.measured(found, names(folder)))
    for file, parts in (("find_persona", ("personas", "rules")), ("find_cost", ("cost",))):
        if (folder / f"{file}.json").exists():
            said = json.loads((folder / f"{file}.json").read_text(encoding="utf-8"))
            for name in parts:
                text = put(text, name, getattr(tables, name)(said))
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
