"""The batched decode loop over token ids.

Many rows run at once, each with its own prompt, edits, random stream and sampling settings. Rows that finish leave the
batch and waiting rows take their places (continuous batching, after Orca: Yu et al., 2022). Rows with the same prompt
and the same edits share one pass over the prompt. Only the last position goes through the output layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from trimtab.errors import UnsupportedError
from trimtab.lm.cache import RowCache
from trimtab.lm.clock import Clock
from trimtab.lm.head import Head
from trimtab.lm.packed import packed_layers
from trimtab.lm.residual import Positions, SiteEdit, edit
from trimtab.lm.sampling import draw, uniforms
from trimtab.spec import Sampling

if TYPE_CHECKING:
    from trimtab.lm.model import Model, Steering

_PREFILL_TOKENS = 4096
_SLACK = 64


@dataclass(frozen=True)
class Row:
    """One text to write: prompt ids, key of its random stream, how to draw, and what to edit (hashable, or None).

    `edits_prompt` is false when the recipe leaves the prompt alone, whose pass is then shared with unsteered rows.
    """

    prompt: tuple[int, ...]
    key: int
    sampling: Sampling
    recipe: Steering | None = None
    edits_prompt: bool = True

    @property
    def start(self) -> tuple[tuple[int, ...], Steering | None]:
        """What decides the pass over the prompt: rows for which this is the same share it."""
        return self.prompt, self.recipe if self.edits_prompt else None


@dataclass(frozen=True)
class Written:
    """What one row became: the generated ids (an end token included) and why it stopped."""

    tokens: tuple[int, ...]
    finished: Literal["eos", "length"]


@dataclass(frozen=True)
class Progress:
    """How far a run is: rows done of all, tokens written, the most that are left, and seconds since the start."""

    done: int
    rows: int
    tokens: int
    left: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Mean rate since the start."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float:
        """At the mean rate, if every row runs to its full length."""
        return self.left / self.tokens_per_second if self.tokens else 0.0


@torch.no_grad()
def decode(
    model: Model,
    rows: Sequence[Row],
    *,
    batch_size: int,
    stops: Collection[int] = (),
    progress: Callable[[Progress], None] | None = None,
) -> list[Written]:
    """Write all rows, at most `batch_size` at a time; `stops` are the ids that end a row. In the order of `rows`.

    Raises `InputError` when logits are not finite, and `UnsupportedError` inside `model.edited`.
    """
    if not rows:
        return []
    if any(
        isinstance(getattr(hook, "__self__", None), Clock) for hook in model.hf.base_model._forward_pre_hooks.values()
    ):
        raise UnsupportedError(
            "Generation in batches cannot run inside model.edited(...); give the recipe to generate."
        )
    batch = _Batch(model, rows, min(batch_size, len(rows)), frozenset(stops))
    began = time.monotonic()
    with packed_layers(model):
        while batch.active or batch.waiting:
            batch.step()
            if progress is not None:
                progress(batch.progress(time.monotonic() - began))
    return [batch.written(row) for row in range(len(rows))]


class _Batch:
    """The rows under way. `active[i]` is the row in slot i; `tokens[row]` what it has written so far."""

    def __init__(self, model: Model, rows: Sequence[Row], slots: int, stops: frozenset[int]) -> None:
        self.model, self.rows, self.slots, self.stops = model, rows, slots, stops
        self.tokens: list[list[int]] = [[] for _ in rows]
        self.active: list[int] = []
        self.waiting = list(range(len(rows)))[::-1]
        self.reserve = max(len(row.prompt) for row in rows)
        columns = _SLACK + max(len(row.prompt) + row.sampling.max_new_tokens for row in rows)
        self.cache = RowCache(model.n_layers, slots, columns, edge=self.reserve)
        self.head = Head(model, slots)
        self.edits: list[SiteEdit] | None = None  # of the active rows; None when these have changed

    def step(self) -> None:
        """One token for every row: those under way and those that enter now."""
        hidden = []
        if self.active:
            hidden.append(self._advance())
        free = self.slots - len(self.active)
        if self.waiting and (free >= min(len(self.waiting), max(1, self.slots // 8))):
            entering = [self.waiting.pop() for _ in range(min(free, len(self.waiting)))]
            hidden.extend(self._enter(group) for group in _groups(self.rows, entering))
        self._draw(torch.cat(hidden))

    def _advance(self) -> Tensor:
        """Feed every row its last token; the last hidden state [rows, d]."""
        if self.edits is None:
            self.edits = _compiled(self.model, [self.rows[row].recipe for row in self.active])
        device = self.model.device
        lengths = [len(self.rows[row].prompt) + len(self.tokens[row]) - 1 for row in self.active]
        longest = max(lengths)
        self.cache.look_back(longest, self.reserve)
        ids = torch.tensor([[self.tokens[row][-1]] for row in self.active], device=device)
        at = torch.tensor(lengths, device=device)[:, None]
        mask = None
        if min(lengths) < longest:
            mask = torch.arange(longest + 1, device=device) >= longest - at
        yes = torch.ones_like(ids, dtype=torch.bool)
        now = Positions(at, yes, yes, ids == self.model.bos_id if self.model.bos_id is not None else ~yes)
        return _forward(self.model, ids, mask, now, self.cache, self.edits)

    def _enter(self, entering: list[int]) -> Tensor:
        """Run the prompts of these rows, each distinct (prompt, edits) once; the last hidden state [rows, d]."""
        model = self.model
        distinct: dict[tuple[tuple[int, ...], Steering | None], int] = {}
        source = [distinct.setdefault(self.rows[row].start, len(distinct)) for row in entering]
        ids, real = model.pad([prompt for prompt, _ in distinct])
        at = (real.cumsum(1) - 1).clamp(min=0)
        bos = (ids == model.bos_id) & (real == 1) if model.bos_id is not None else torch.zeros_like(real).bool()
        now = Positions(at, torch.zeros_like(bos), real == 1, bos)
        cache = RowCache(model.n_layers, len(distinct), ids.shape[1])
        edits = _compiled(model, [recipe for _, recipe in distinct])
        hidden = _forward(model, ids, None if bool(real.all()) else real, now, cache, edits)
        self.cache.insert(len(self.active), cache, source, ids.shape[1])
        self.active.extend(entering)
        self.edits = None
        return hidden[source]

    def _draw(self, hidden: Tensor) -> None:
        rows = [self.rows[row] for row in self.active]
        heat = [row.sampling.temperature or 1.0 for row in rows]
        temperature = torch.tensor(heat, device=hidden.device)[:, None] if any(one != 1 for one in heat) else None
        noise = uniforms([row.key for row in rows], [len(self.tokens[row]) for row in self.active])
        drawn = draw(self.head(hidden, temperature), noise, [row.sampling for row in rows]).tolist()
        for row, token in zip(self.active, drawn, strict=True):
            self.tokens[row].append(token)
        staying = [slot for slot, row in enumerate(self.active) if not self._finished(row)]
        if len(staying) < len(self.active):
            order = _packed(staying)
            self.cache.keep(order)
            self.active = [self.active[slot] for slot in order]
            self.edits = None

    def _finished(self, row: int) -> bool:
        tokens = self.tokens[row]
        return tokens[-1] in self.stops or len(tokens) >= self.rows[row].sampling.max_new_tokens

    def written(self, row: int) -> Written:
        """The result of a row that has finished."""
        tokens = self.tokens[row]
        return Written(tuple(tokens), "eos" if tokens[-1] in self.stops else "length")

    def progress(self, seconds: float) -> Progress:
        """How far the run is."""
        under_way = self.active + self.waiting
        left = sum(self.rows[row].sampling.max_new_tokens - len(self.tokens[row]) for row in under_way)
        tokens = sum(map(len, self.tokens))
        return Progress(len(self.rows) - len(under_way), len(self.rows), tokens, left, seconds)


def _packed(staying: list[int]) -> list[int]:
    """The same slots in an order that moves as few as possible: those that fit stay, the others fill the holes."""
    n = len(staying)
    order = {slot: slot for slot in staying if slot < n}
    late = [slot for slot in staying if slot >= n]
    for hole in range(n):
        if hole not in order:
            order[hole] = late.pop()
    return [order[slot] for slot in range(n)]


def _groups(rows: Sequence[Row], entering: list[int]) -> Iterator[list[int]]:
    """Consecutive rows whose distinct prompts, padded, stay below a number of tokens per forward pass."""
    group: list[int] = []
    distinct: set[tuple[tuple[int, ...], Steering | None]] = set()
    longest = 0
    for row in entering:
        key = rows[row].start
        size = max(longest, len(key[0]))
        if group and size * len(distinct | {key}) > _PREFILL_TOKENS:
            yield group
            group, distinct, size = [], set(), len(key[0])
        group.append(row)
        distinct.add(key)
        longest = size
    yield group


def _compiled(model: Model, recipes: Sequence[Steering | None]) -> list[SiteEdit]:
    first = next((one for one in recipes if one is not None), None)
    return [] if first is None else type(first).compile_rows(recipes, model)


def _forward(
    model: Model, ids: Tensor, mask: Tensor | None, now: Positions, cache: RowCache, edits: Sequence[SiteEdit]
) -> Tensor:
    """The last hidden state [rows, d] after the new tokens `ids`, which the cache then holds."""
    with edit(model, edits, positions=lambda: now, record=False, must_act=False):
        out = model.hf.base_model(
            input_ids=ids, attention_mask=mask, position_ids=now.absolute, past_key_values=cache, use_cache=True
        )
    cache.advance(ids.shape[1])
    return out.last_hidden_state[:, -1]
