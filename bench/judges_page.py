"""Write the table of docs/judges.md from the JSON of bench/judges.py; the prose around it stays.

python bench/judges_page.py bench/results/judges.json docs/judges.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from page import put
from tables import table

from trimtab.evidence.judges.judge import MAX_P, MIN_AUC
from trimtab.files import write_file


def render(said: dict[str, Any]) -> str:
    """AUC of every judge for every concept, those that refuse in brackets; the mean; how many shuffled ones judge."""
    results = said["results"]
    names = [name for name in results[0]["judges"] if all(name in one["judges"] for one in results)]
    rows = []
    for one in results:
        skills = [one["judges"][name]["skill"] for name in names]
        rows.append([one["concept"], str(2 * one["held"]), *(_cell(skill) for skill in skills)])
    means = [sum(one["judges"][name]["skill"]["auc"] for one in results) / len(results) for name in names]
    rows.append(["**mean**", "", *(f"**{mean:.2f}**" for mean in means)])
    judging = [sum(_judges(one["judges"][name]["skill"]) for one in results) for name in names]
    rows.append(["judges", "", *(f"{n} of {len(results)}" for n in judging)])
    wrong = [[skill for one in results for skill in one["judges"][name]["shuffled"]] for name in names]
    rows.append(["mean, labels shuffled", "", *(f"{sum(s['auc'] for s in some) / len(some):.2f}" for some in wrong)])
    rows.append(["... judges", "", *(f"{sum(map(_judges, some))} of {len(some)}" for some in wrong)])
    return table(["AUC on held-out texts", "texts", *names], rows)


def _judges(skill: dict[str, Any]) -> bool:
    return bool(skill["auc"] >= MIN_AUC and skill["p"] < MAX_P)


def _cell(skill: dict[str, Any]) -> str:
    shown = f"{skill['auc']:.2f}"
    return shown if _judges(skill) else f"({shown})"


def main() -> None:
    results, page = map(Path, sys.argv[1:3])
    text = put(
        page.read_text("utf-8"), "judges", render(json.loads(results.read_text("utf-8"))), "bench/judges_page.py"
    )
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
