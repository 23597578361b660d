"""Labels from a language model behind any OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.endpoint import Endpoint
from trimtab.errors import FileError, InputError
from trimtab.index.labels import Snippet
from trimtab.index.records import Example, Feature

_EXPLAIN = (
    "A feature of a language model fires on the marked tokens <<like this>> of the texts below; the number is how "
    "strongly, from 1 to 10. The texts show strong and weak firings. Say in at most ten words what the feature "
    "responds to, as a noun phrase that holds for the weak firings too. Answer with the phrase alone."
)
_DETECT = (
    "A feature of a language model responds to: {label}\nFor each numbered text below, does the feature fire on any of "
    "its tokens? Answer with a JSON list of the numbers of the texts where it does, and nothing else."
)


@dataclass(frozen=True)
class Labeller(Endpoint):
    """An endpoint that labels features and judges labels."""

    @property
    def method(self) -> str:
        """How labels made here are called."""
        return f"llm {self.model}"

    def explain(self, feature: Feature, most: int = 24) -> str:
        """A label from examples of all bands. Raises `InputError` when the feature has none."""
        shown = spread(feature.examples, most)
        if not shown:
            raise InputError(f"Feature {feature.index} never fired, so there is nothing to label it by.")
        lines = [f"{number}. {_marked(example, feature.max)}" for number, example in enumerate(shown, 1)]
        answer = self.ask("\n".join([_EXPLAIN, "", *lines]))
        return " ".join(answer.split()).strip("\"'. ")[:200]

    def judge(self, label: str, snippets: Sequence[Snippet]) -> list[bool]:
        """A `trimtab.index.labels.Judge`: which snippets the model believes the label to hold for."""
        lines = [f"{number}. {' '.join(snippet.text.split())}" for number, snippet in enumerate(snippets, 1)]
        answer = self.ask("\n".join([_DETECT.format(label=label), "", *lines]))
        found = re.search(r"\[[\d,\s]*\]", answer)
        if found is None:
            raise FileError(f"{self.url} did not answer with a list of numbers: {answer[:80]!r}.")
        chosen = set(json.loads(found.group()))
        return [number in chosen for number in range(1, len(snippets) + 1)]


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """Up to `most` examples, dealt in turn from the top and from every band; a text is shown once."""
    piles: dict[object, list[Example]] = {}
    for example in examples:
        if example.kind != "random":
            piles.setdefault(example.low, []).append(example)
    dealt: dict[tuple[int, ...], Example] = {}
    while len(dealt) < most and any(piles.values()):
        for pile in piles.values():
            pile[:] = [example for example in pile if example.ids not in dealt]
            if pile and len(dealt) < most:
                dealt[pile[0].ids] = pile[0]
    return list(dealt.values())


def _marked(example: Example, top: float) -> str:
    shown = [
        f"<<{token}>>({max(1, round(10 * value / top))})" if value > 0 and top > 0 else token
        for token, value in zip(example.tokens, example.values, strict=True)
    ]
    return " ".join("".join(shown).split())
