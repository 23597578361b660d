"""Texts that a model drew -> those that go into the shipped index, and those that its labels are judged on.

    python recipes/gemma-3-270m/clean_corpus.py runs/texts --out runs/texts.jsonl.gz --heldout runs/unseen.jsonl.gz

Simple rules, which know English only and cannot promise anything: a text is left out when it has an address, number or
handle that could be somebody's, or somebody's age, speaks of crimes that people are accused of, names some public
persons of our days, is coarse or sexual, has control tokens, or goes round in circles. Every eighth of the others is
held out.
"""

from __future__ import annotations

import argparse
import codecs
import gzip
import json
import re
from collections import Counter
from pathlib import Path

from trimtab.files import write_file
from trimtab.steer.run_folder import read_rows

PERSONAL = {
    "e-mail address": r"[\w.+-]+@[\w-]+\.\w+|\(at\)|\[at\]",
    "web address": r"https?:|www\.|\b[\w-]+\.(com|org|net|edu|gov|info|io|co|uk|de|ca|au)\b",
    "handle": r"@",
    "phone or card number": r"(?<!\d)\+?\(?\d[\d() .-]{6,}\d(?!\d)",
    "street address": r"\b\d+[a-z]? ([A-Z]\w+ ){1,3}(Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Boulevard|Blvd|Court)\b",
    "somebody's age": r"[A-Z]\w+ [A-Z]\w+,? (\(\d\d\)|,? ?(aged )?\d\d,)|\b\d+-year-old\b",
}
ACCUSING = (
    r"arrest|accus|alleg|charged with|convict|murder|homicid|manslaughter|assault|abus|molest|terroris|suicid|stabb"
)
OF_OUR_DAYS = (
    r"trump|obama|biden|clinton|putin|zelensk|modi\b|netanyahu|merkel|macron|johnson|musk\b|bezos|zuckerberg|epstein|"
    r"weinstein|kardashian|hitler|kavanaugh|imran khan|xi jinping|erdogan|bolsonaro"
)
COARSE = (
    r"fuck|shit|bullshit|bitch|asshole|bastard|cunt|dick\b|cock\b|pussy|whore|slut|porn|sex|rap(e|ed|es|ist)\b|nude|naked|"
    r"nipple|penis|vagina|orgasm|erotic|fetish|escort|incest|pedoph|viagra|casino|holocaust|nazi|genocid|"
    + codecs.decode("avtt|snttbg|xvxr\\o|ergneq|genaal|puvax\\o|fcvp\\o|tbbx\\o|cnxv\\o", "rot13")
)
RULES = {
    **PERSONAL,
    "crime, with somebody who may have done it": rf"(?i)\b({ACCUSING})",
    "person of our days": rf"(?i)\b({OF_OUR_DAYS})",
    "coarse or sexual": rf"(?i)\b({COARSE})",
    "control token": r"<(start_of|end_of|unused|pad|mask|eos|bos)|\[multimodal\]|\ufffd",
}
HELD_OUT = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--heldout", type=Path, required=True)
    given = parser.parse_args()
    rules = {name: re.compile(rule) for name, rule in RULES.items()}
    dropped: Counter[str] = Counter()
    kept: list[dict[str, str]] = []
    for row in read_rows(given.folder):
        why = next((name for name, rule in rules.items() if rule.search(row["text"])), None)
        if why is None and goes_round(row["token_ids"]):
            why = "goes round in circles"
        if why is None:
            kept.append({"text": row["text"]})
        else:
            dropped[why] += 1
    write(given.heldout, kept[HELD_OUT - 1 :: HELD_OUT])
    write(given.out, [row for i, row in enumerate(kept, 1) if i % HELD_OUT])
    print(json.dumps({"kept": len(kept), "held_out": len(kept) // HELD_OUT, "dropped": dict(dropped)}, indent=2))


def goes_round(ids: list[int]) -> bool:
    """Whether fewer than 40 % of a text's tokens are distinct."""
    return len(ids) >= 32 and len(set(ids)) < 0.4 * len(ids)


def write(path: Path, rows: list[dict[str, str]]) -> None:
    """The same rows give the same bytes."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with write_file(path) as part:
        part.write_bytes(gzip.compress(lines.encode(), mtime=0))


if __name__ == "__main__":
    main()
