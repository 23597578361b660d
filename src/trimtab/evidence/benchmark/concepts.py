"""What is steered towards: the concept in words, and a contrast set with a half for methods and a half for judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trimtab.errors import FileError, InputError
from trimtab.files import read_json
from trimtab.find.pairs import ContrastSet
from trimtab.find.sources import read, shipped, shipped_names

PHRASES = {
    "agreeableness": "by a kind and helpful person",
    "fear": "about fear",
    "food": "about food",
    "formality": "in formal English",
    "love": "about love",
    "money": "about money",
    "person": "in the first person",
    "question": "that asks questions",
    "sea": "about the sea",
    "sentiment": "full of praise",
    "tense": "in the past tense",
    "war": "about war",
}
"""How each shipped concept goes on after "Here is a text"."""

NAMES = "phrases.json"
_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Concept:
    """A concept: `phrase` goes on after "Here is a text"; methods see `texts` alone, judges `held` alone."""

    name: str
    phrase: str
    texts: ContrastSet
    held: ContrastSet

    @property
    def digest(self) -> str:
        """Changes with the texts of either half."""
        return f"{self.texts.digest[:16]} {self.held.digest[:16]}"


def halves(contrast: ContrastSet) -> tuple[ContrastSet, ContrastSet]:
    """Two halves, always the same ones; near duplicates stay together."""
    parts = contrast.split((0.5, 0.25, 0.25))
    held = replace(
        contrast,
        positive=(*parts.dev.positive, *parts.test.positive),
        negative=(*parts.dev.negative, *parts.test.negative),
    )
    return parts.train, held


def concept_of(contrast: ContrastSet, phrase: str | None = None) -> Concept:
    """A concept from a contrast set; without a phrase it is "about" its name."""
    return Concept(contrast.name, phrase or f"about {contrast.name}", *halves(contrast))


def shipped_concepts(names: Sequence[str] = ()) -> list[Concept]:
    """The project's own concepts, or some of them by name."""
    return [concept_of(shipped(name), PHRASES[name]) for name in (names or shipped_names())]


def concepts_in(folder: str | Path) -> list[Concept]:
    """A concept for each contrast file in `folder`, named after it.

    A `phrases.json` there ({"name": "about ..."}) says what each is in words, for the prompted arms.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder} is not a folder of contrast files.")
    phrases = read_json(folder / NAMES) if (folder / NAMES).exists() else {}
    if not isinstance(phrases, dict) or not all(isinstance(value, str) for value in phrases.values()):
        raise FileError(f'{folder / NAMES} must hold names and phrases, such as {{"sea": "about the sea"}}.')
    files = sorted(path for path in folder.iterdir() if path.suffix in _KINDS and path.name != NAMES)
    found = [concept_of(replace(read(path), name=path.stem), phrases.get(path.stem)) for path in files]
    if not found:
        raise InputError(f"{folder} holds no contrast files. Valid: {', '.join(_KINDS)}.")
    if len({one.name for one in found}) < len(found):
        raise InputError(f"Two files of {folder} have the same name but for their endings.")
    return found
