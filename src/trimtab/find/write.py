"""Contrastive pairs for a concept named in words, written by a model: one behind an OpenAI-compatible endpoint, or the
local one continuing a template. The result is an ordinary contrast set that a person can edit.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from trimtab.endpoint import Endpoint
from trimtab.errors import InputError, TrimtabError
from trimtab.find.overlap import normal
from trimtab.find.pairs import ContrastSet

if TYPE_CHECKING:
    from trimtab.lm.model import Model

Say = Callable[[str], None]

PER_REQUEST = 20
WORDS = (6, 25)
REQUEST = (
    "Write {n} pairs of natural English sentences of 8 to 20 words for studying the concept: {concept}.\n"
    "In each pair the first sentence clearly shows the concept and the second does not; apart from that the two share "
    "the situation, style and length. Vary subjects and openings. Use settings such as {hints}.\n"
    'Answer with one JSON object a line and nothing else: {{"positive": "...", "negative": "..."}}'
)
HINTS = (
    "a kitchen", "a train", "a school", "a letter", "an office", "a farm", "a hospital", "a dark street", "a market",
    "a family meal", "a workshop", "a forest", "a phone call", "a museum", "a small town", "a football game", "a diary",
    "a news report", "a shop", "an old house", "a courtroom", "a beach", "a garden", "a concert",
)  # fmt: skip
LOCAL = (
    ("Here is a sentence about {concept}:", "Here is a sentence about {other}:"),
    ("A short note on the subject of {concept}:", "A short note on the subject of {other}:"),
    ("From a story about {concept}:", "From a story about {other}:"),
)
OTHERS = (
    "a letter",
    "the weather",
    "a neighbour",
    "furniture",
    "a bus ride",
    "a meeting",
    "music lessons",
    "gardening",
)


def pairs_from_endpoint(
    concept: str, n: int, *, url: str, model: str, key: str | None = None, seed: int = 0, timeout: float = 120.0,
    say: Say | None = None,
) -> ContrastSet:  # fmt: skip
    """Ask `model` at an OpenAI-compatible `url` (such as http://localhost:8000/v1) for `n` pairs.

    Lines that are not pairs, sentences outside 6 to 25 words and repeated texts are dropped, and more is asked for, up
    to three times as often as needed. Raises `InputError` for an empty concept, and `TrimtabError` when the endpoint
    cannot be reached, refuses, or does not deliver.
    """
    _check(concept, n)
    writer = Endpoint(url, model, key, timeout)
    draw = random.Random(f"{concept} {seed}")
    made: list[tuple[str, str]] = []
    seen: set[str] = set()
    rounds = 3 * -(-n // PER_REQUEST) + 1
    for turn in range(rounds):
        wanted = min(PER_REQUEST, n - len(made))
        text = REQUEST.format(n=wanted, concept=concept, hints=", ".join(draw.sample(HINTS, 5)))
        _keep(parse_pairs(writer.ask(text, most=None, temperature=1.0, seed=seed + turn)), made, seen, n)
        if say:
            say(f"{len(made)} of {n} pairs")
        if len(made) == n:
            return ContrastSet.of(*zip(*made, strict=True), name=concept, paired=True)
    raise TrimtabError(
        f"{model} at {url} gave only {len(made)} usable pairs of {n} in {rounds} requests. Try another model."
    )


def pairs_from_model(concept: str, n: int, model: Model, *, seed: int = 0, say: Say | None = None) -> ContrastSet:
    """Let the local model continue templates about the concept and about other things; the first sentence is kept.

    A small model wanders off, so read what it wrote before you use it. Raises `TrimtabError` when too few are usable.
    """
    from trimtab.steer.generate import generate

    _check(concept, n)
    draw = random.Random(f"{concept} {seed}")
    made: list[tuple[str, str]] = []
    seen: set[str] = set()
    for turn in range(6):
        prompts = []
        for _ in range(2 * (n - len(made))):
            first, second = draw.choice(LOCAL)
            prompts += [first.format(concept=concept), second.format(other=draw.choice(OTHERS))]
        records = generate(model, prompts, max_new_tokens=40, temperature=0.8, top_p=0.9, seed=seed + turn)
        sentences = [first_sentence(record.text) for record in records]
        _keep(list(zip(sentences[::2], sentences[1::2], strict=True)), made, seen, n)
        if say:
            say(f"{len(made)} of {n} pairs")
        if len(made) == n:
            return ContrastSet.of(*zip(*made, strict=True), name=concept, paired=True)
    raise TrimtabError(f"{model.name} wrote only {len(made)} usable pairs of {n}. Try a larger model, or an endpoint.")


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs in a reply: JSON objects one a line, in a list, or fenced; anything else is passed over."""
    found = []
    for match in re.finditer(r"\{[^{}]*\}", text):
        try:
            row = json.loads(match.group())
        except json.JSONDecodeError:
            continue
        if isinstance(row.get("positive"), str) and isinstance(row.get("negative"), str):
            found.append((row["positive"].strip(), row["negative"].strip()))
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a continuation, without quotes; empty when it does not end."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    match = re.match(r"[\"'“*\s]*([^\"“”*]+?[.!?])(?:[\"'”\s]|$)", line)
    return match.group(1).strip() if match else ""


def _keep(pairs: list[tuple[str, str]], made: list[tuple[str, str]], seen: set[str], n: int) -> None:
    for pair in pairs:
        keys = {normal(text) for text in pair}
        right = all(WORDS[0] <= len(text.split()) <= WORDS[1] for text in pair)
        if len(made) < n and right and len(keys) == 2 and not keys & seen:
            made.append(pair)
            seen |= keys


def _check(concept: str, n: int) -> None:
    if not concept.strip():
        raise InputError("Name the concept in words, such as 'the sea' or 'speaking formally'.")
    if n < 8:
        raise InputError(f"At least 8 pairs are needed, not {n}.")
