"""The rows of an `Engine`: what is asked for, what each step gives, and how rows share passes and places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from trimtab.spec import Sampling

if TYPE_CHECKING:
    from trimtab.lm.model import Steering
    from trimtab.lm.receipt import Step

_PREFILL_TOKENS = 4096


@dataclass(frozen=True)
class Row:
    """One text to write: prompt ids, key of its random stream, how to draw, and what to edit (hashable, or None).

    `edits_prompt` is false when the recipe leaves the prompt alone, whose pass is then shared with unsteered rows.
    `likeliest`: how many of the likeliest tokens are told with each token (0: its own log-probability alone; None:
    nothing). `record`: tell at the end which tokens were edited, and by how much.
    """

    prompt: tuple[int, ...]
    key: int
    sampling: Sampling
    recipe: Steering | None = None
    edits_prompt: bool = True
    likeliest: int | None = None
    record: bool = False

    @property
    def start(self) -> tuple[tuple[int, ...], Steering | None]:
        """What decides the pass over the prompt: rows for which this is the same share it."""
        return self.prompt, self.recipe if self.edits_prompt else None


@dataclass(frozen=True)
class Touched:
    """What was done to a row at one site: tokens edited, and the mean over them of ||change|| / ||residual||."""

    prompt_tokens: int
    generated_tokens: int
    ratio: float


@dataclass(frozen=True)
class Drawn:
    """What one step gave a row: its next token, or why it broke. `finished` None: the row goes on.

    `logprob` and `top` (token, log-probability), likeliest first, are those of the model at temperature 1, edits
    included. `touched` (by site) comes with the last token of a row that asks for a record.
    """

    handle: int
    token: int | None
    finished: Literal["eos", "length", "error"] | None = None
    error: str = ""
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    touched: Mapping[str, Touched] | None = None


@dataclass
class Live:
    """A row in the engine: what it has written so far, and what was edited at each site."""

    row: Row
    tokens: list[int] = field(default_factory=list)
    # site -> prompt tokens, generated tokens, ratios summed
    edited: dict[str, tuple[int, int, float]] = field(default_factory=dict)

    def note(self, steps: Sequence[Step], row: int, generated: bool) -> None:
        """Count what one forward pass did to its row `row`."""
        for step in steps:
            n, ratio = len(step.positions[row]), step.ratio[row]
            if ratio is not None:
                a, b, total = self.edited.get(str(step.site), (0, 0, 0.0))
                self.edited[str(step.site)] = (
                    (a, b + n, total + n * ratio) if generated else (a + n, b, total + n * ratio)
                )

    def touched(self) -> dict[str, Touched] | None:
        """What was done to the row, if it asks for that."""
        if not self.row.record:
            return None
        return {site: Touched(a, b, total / (a + b)) for site, (a, b, total) in sorted(self.edited.items())}


def packed(staying: list[int]) -> list[int]:
    """The same slots in an order that moves as few as possible: those that fit stay, the others fill the holes."""
    n = len(staying)
    order = {slot: slot for slot in staying if slot < n}
    late = [slot for slot in staying if slot >= n]
    for hole in range(n):
        if hole not in order:
            order[hole] = late.pop()
    return [order[slot] for slot in range(n)]


def groups(entering: Mapping[int, Row]) -> Iterator[list[int]]:
    """Handles of consecutive rows whose distinct prompts, padded, stay below a number of tokens per forward pass."""
    group: list[int] = []
    distinct: set[tuple[tuple[int, ...], Steering | None]] = set()
    longest = 0
    for handle, row in entering.items():
        key = row.start
        size = max(longest, len(key[0]))
        if group and size * len(distinct | {key}) > _PREFILL_TOKENS:
            yield group
            group, distinct, size = [], set(), len(key[0])
        group.append(handle)
        distinct.add(key)
        longest = size
    yield group
