"""Are the intervals and verdicts of a verification right? Simulated studies of full size; writes JSON and tables.

python bench/coverage.py [--only intervals planted] [--runs 2000] [--seeds 0 200] [--out bench/results/coverage.json]
python bench/coverage.py --page docs/evidence.md     writes the tables of the page from the JSON

No model is needed but the planted ones, which are made on the spot. Every part is saved as soon as it is done, and a
part that is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trimtab.evidence.stats import MIN_CLUSTERS
from trimtab.files import write_file, write_json
from trimtab.testing.studies import SCORES, coverage, planted_verdicts, verified

DESIGNS = ((3, 8), (5, 8), (10, 8), (20, 4))
STEP = 10


def intervals(said: dict[str, Any], runs: int, out: Path) -> None:
    """Coverage of every kind of score in every design."""
    done = said.setdefault("intervals", [])
    for kind, scores in SCORES.items():
        for prompts, samples in DESIGNS:
            where = {"scores": kind, "prompts": prompts, "samples": samples}
            if any({key: one[key] for key in where} == where for one in done):
                continue
            found = coverage(scores, prompts, samples, runs=runs)
            done.append({**where, **asdict(found)})
            write_json(out, said)
            print(where, f"{found.covered:.1%}", flush=True)


def planted(said: dict[str, Any], seeds: range, out: Path) -> None:
    """Verdicts on planted recipes, one world per seed."""
    done = said.setdefault("planted", {})
    for seed in seeds:
        if str(seed) not in done:
            done[str(seed)] = planted_verdicts(seed)
            if seed % STEP == STEP - 1:
                write_json(out, said)
                print(seed + 1, flush=True)
    write_json(out, said)


def tables(said: dict[str, Any]) -> dict[str, str]:
    """The tables of the page, by the name that marks their place."""
    heads = ("scores", "prompts x samples", "covers", "truth below", "truth above", "flagged", "covers, not flagged")
    rows = ["| " + " | ".join((*heads, "Student's t covers")) + " |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for one in said["intervals"]:
        trusted = "" if one["trusted"] is None else f"{one['trusted']:.1%}"
        about = " (these prompts)" if one["prompts"] < MIN_CLUSTERS else ""
        rows.append(
            f"| {one['scores']} | {one['prompts']} x {one['samples']}{about} | {one['covered']:.1%} "
            f"| {one['below']:.1%} | {one['above']:.1%} | {one['thin']:.1%} | {trusted} | {one['student']:.1%} |"
        )
    names = list(next(iter(said["planted"].values())))
    lines = ["| recipe | verified | verdicts |", "|---|---:|---|"]
    for name in names:
        verdicts = Counter(one[name] for one in said["planted"].values())
        share = sum(n for verdict, n in verdicts.items() if verified(verdict)) / verdicts.total()
        counts = ", ".join(f"{verdict} {n}" for verdict, n in verdicts.most_common())
        lines.append(f"| {name} | {share:.1%} | {counts} |")
    runs = said["intervals"][0]["runs"]
    return {
        "intervals": f"{runs} simulated studies each; nominal 95 %.\n\n" + "\n".join(rows),
        "planted": f"{len(said['planted'])} planted worlds.\n\n" + "\n".join(lines),
    }


def write_page(said: dict[str, Any], page: Path) -> None:
    """Put the tables between their marks; everything else on the page stays."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables(said).items():
        begin, end = f"<!-- {name}: written by bench/coverage.py -->", f"<!-- end of {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{page} has no place for the table {name!r}: a line {begin!r} and a line {end!r}.")
        text = pattern.sub(lambda _, new=f"{begin}\n{table}\n{end}": new, text)
    with write_file(page) as part:
        part.write_text(text, encoding="utf-8")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["intervals", "planted"], choices=["intervals", "planted"])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 200), metavar=("FIRST", "END"))
    parser.add_argument("--out", type=Path, default=Path("bench/results/coverage.json"))
    parser.add_argument("--page", type=Path)
    asked = parser.parse_args()
    said = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    if asked.page is not None:
        write_page(said, asked.page)
        return
    if "intervals" in asked.only:
        intervals(said, asked.runs, asked.out)
    if "planted" in asked.only:
        planted(said, range(*asked.seeds), asked.out)


if __name__ == "__main__":
    main()
