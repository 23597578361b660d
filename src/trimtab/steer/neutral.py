"""Texts about nothing in particular. The cost of steering is measured on their beginnings, which the model continues.

Forty-eight passages written for this project, in the registers of ordinary English: stories and dialogue, reviews,
news, speeches, essays, people about themselves, chat, instructions, letters, facts. Any first part of them is mixed
too.
"""

from __future__ import annotations

import json
from importlib import resources


def _read() -> tuple[str, ...]:
    lines = (resources.files("trimtab") / "data" / "neutral.jsonl").read_text("utf-8").splitlines()
    return tuple(json.loads(line)["text"] for line in lines)


NEUTRAL = _read()
