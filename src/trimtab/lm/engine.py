"""A batch of texts under way, which rows enter and leave while it runs.

Every row has its own prompt, edits, random stream and sampling settings. Rows that finish leave the batch and waiting
rows take their places (continuous batching, after Orca: Yu et al., 2022). Rows with the same prompt and the same edits
that enter together share one pass over the prompt. Only the last position goes through the output layer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm.cache import RowCache
from trimtab.lm.clock import Clock
from trimtab.lm.head import Head
from trimtab.lm.residual import NotFiniteError, Positions, SiteEdit, edit
from trimtab.lm.rows import Drawn, Live, Row, groups, packed
from trimtab.lm.sampling import Logits, draw, uniforms

if TYPE_CHECKING:
    from trimtab.lm.model import Model, Steering
    from trimtab.lm.receipt import Step

_SLACK = 64


class Engine:
    """Up to `slots` rows at a time, of prompts up to `prompt` tokens and texts (prompt included) up to `longest`.

    `add` and `cancel` whenever no `step` is running; all from one thread. What a row becomes does not depend on the
    others, up to the rounding of float32 sums. `stops` are the ids that end a row.
    """

    def __init__(self, model: Model, *, slots: int, prompt: int, longest: int, stops: Collection[int] = ()) -> None:
        self.model, self.slots, self.stops = model, slots, frozenset(stops)
        self.reserve, self.longest = prompt, longest
        self.head = Head(model, slots)
        self.added = 0
        self.clear()

    def clear(self) -> None:
        """Forget all rows, and give back the memory of the cache until the next row enters."""
        self.rows: dict[int, Live] = {}
        self.active: list[int] = []  # handles of the rows in the slots 0, 1, ...
        self.waiting: deque[int] = deque()
        self.cache = RowCache(self.model.n_layers, self.slots, _SLACK + self.longest, edge=self.reserve)
        self.edits: list[SiteEdit] | None = None  # of the active rows; None when these have changed

    @property
    def busy(self) -> bool:
        """Whether any row is under way or waiting."""
        return bool(self.rows)

    def add(self, row: Row) -> int:
        """Let a row wait for a place; the handle by which `step` and `cancel` speak of it, counted from 0.

        Raises `InputError` for a row without a prompt, and for one that is longer than this engine was made for.
        """
        if not 0 < len(row.prompt) <= self.reserve or len(row.prompt) + row.sampling.max_new_tokens > self.longest:
            raise InputError(
                f"A row has {len(row.prompt)} prompt tokens and {row.sampling.max_new_tokens} new ones; this engine "
                f"takes 1 to {self.reserve}, and {self.longest} in all."
            )
        handle, self.added = self.added, self.added + 1
        self.rows[handle] = Live(row)
        self.waiting.append(handle)
        return handle

    def cancel(self, handle: int) -> None:
        """Forget a row; nothing happens when it has finished. Its place is free at once."""
        if self.rows.pop(handle, None) is None:
            return
        if handle in self.active:
            self._keep([slot for slot, one in enumerate(self.active) if one != handle])
        else:
            self.waiting.remove(handle)

    @torch.no_grad()
    def step(self) -> list[Drawn]:
        """One token for every row: those under way and those that enter now. Nothing when no row is there.

        A row whose numbers are not finite ends with an error and does not disturb the others. Raises what is wrong
        with a recipe as such, such as `MismatchError` for another model; the engine must then be cleared.
        """
        if is_edited(self.model):
            raise UnsupportedError(
                "Generation in batches cannot run inside model.edited(...); give the recipe to generate."
            )
        hidden: list[Tensor] = []
        broken: list[Drawn] = []
        while self.active and not hidden:
            try:
                hidden.append(self._advance())
            except NotFiniteError as error:
                broken += self._break(error.rows, str(error))
        free = self.slots - len(self.active)
        if self.waiting and (free >= min(len(self.waiting), max(1, self.slots // 8))):
            entering = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
            for group in groups({handle: self.rows[handle].row for handle in entering}):
                broken += self._enter(group, hidden)
        return broken + (self._draw(torch.cat(hidden)) if hidden else [])

    def _advance(self) -> Tensor:
        """Feed every row its last token; the last hidden state [rows, d]."""
        live = [self.rows[handle] for handle in self.active]
        if self.edits is None:
            self.edits = _compiled(self.model, [one.row.recipe for one in live])
        device = self.model.device
        lengths = [len(one.row.prompt) + len(one.tokens) - 1 for one in live]
        longest = max(lengths)
        self.cache.look_back(longest, self.reserve)
        ids = torch.tensor([[one.tokens[-1]] for one in live], device=device)
        at = torch.tensor(lengths, device=device)[:, None]
        mask = None
        if min(lengths) < longest:
            mask = torch.arange(longest + 1, device=device) >= longest - at
        yes = torch.ones_like(ids, dtype=torch.bool)
        now = Positions(at, yes, yes, ids == self.model.bos_id if self.model.bos_id is not None else ~yes)
        record = any(one.row.record for one in live)
        hidden, steps = _forward(self.model, ids, mask, now, self.cache, self.edits, record)
        for slot, one in enumerate(live):
            if one.row.record:
                one.note(steps, slot, generated=True)
        return hidden

    def _enter(self, entering: list[int], hidden: list[Tensor]) -> list[Drawn]:
        """Run the prompts of these rows, each distinct (prompt, edits) once; their last hidden states [rows, d] are
        put to the others. Rows that break do not enter.
        """
        broken: list[Drawn] = []
        model = self.model
        while entering:
            live = [self.rows[handle] for handle in entering]
            distinct: dict[tuple[tuple[int, ...], Steering | None], int] = {}
            source = [distinct.setdefault(one.row.start, len(distinct)) for one in live]
            ids, real = model.pad([prompt for prompt, _ in distinct])
            at = (real.cumsum(1) - 1).clamp(min=0)
            bos = (ids == model.bos_id) & (real == 1) if model.bos_id is not None else torch.zeros_like(real).bool()
            now = Positions(at, torch.zeros_like(bos), real == 1, bos)
            cache = RowCache(model.n_layers, len(distinct), ids.shape[1])
            edits = _compiled(model, [recipe for _, recipe in distinct])
            mask = None if bool(real.all()) else real
            try:
                last, steps = _forward(model, ids, mask, now, cache, edits, any(one.row.record for one in live))
            except NotFiniteError as error:
                failed = [handle for handle, row in zip(entering, source, strict=True) if row in error.rows]
                broken += [self._end(handle, str(error)) for handle in failed]
                entering = [handle for handle in entering if handle not in failed]
                continue
            for one, row in zip(live, source, strict=True):
                if one.row.record:
                    one.note(steps, row, generated=False)
            self.cache.insert(len(self.active), cache, source, ids.shape[1])
            self.active.extend(entering)
            self.edits = None
            hidden.append(last[source])
            break
        return broken

    def _draw(self, hidden: Tensor) -> list[Drawn]:
        rows = [self.rows[handle].row for handle in self.active]
        heat = [row.sampling.temperature or 1.0 for row in rows]
        temperature = torch.tensor(heat, device=hidden.device)[:, None] if any(one != 1 for one in heat) else None
        logits = self.head(hidden, temperature)
        finite = torch.isfinite(logits.peaks.amax(-1)).tolist()
        if not all(finite):
            bad = [slot for slot, one in enumerate(finite) if not one]
            why = "The model's logits are not finite (NaN or infinity): a strength is too large for its dtype."
            left = [slot for slot, one in enumerate(finite) if one]
            order = packed(left)
            return self._break(bad, why) + (self._draw(hidden[order]) if left else [])
        live = [self.rows[handle] for handle in self.active]
        noise = uniforms([row.key for row in rows], [len(one.tokens) for one in live])
        told = _likeliest(logits, self.head.words, rows, heat)
        tokens = draw(logits, noise, [row.sampling for row in rows]).tolist()
        out, staying = [], []
        for slot, (handle, one, token) in enumerate(zip(self.active, live, tokens, strict=True)):
            one.tokens.append(token)
            scores, top = told.get(slot, (None, ()))
            logprob = None if scores is None else float(scores[token])
            finished = self._finished(one)
            if finished is None:
                staying.append(slot)
                out.append(Drawn(handle, token, logprob=logprob, top=top))
            else:
                out.append(Drawn(handle, token, finished, logprob=logprob, top=top, touched=one.touched()))
                del self.rows[handle]
        self._keep(staying)
        return out

    def _finished(self, one: Live) -> Literal["eos", "length"] | None:
        if one.tokens[-1] in self.stops:
            return "eos"
        return "length" if len(one.tokens) >= one.row.sampling.max_new_tokens else None

    def _break(self, slots: Collection[int], why: str) -> list[Drawn]:
        """End the rows in these slots, and leave nothing of them in the cache."""
        out = [self._end(self.active[slot], why) for slot in slots]
        self.cache.clear(list(slots))
        self._keep([slot for slot in range(len(self.active)) if slot not in slots])
        return out

    def _end(self, handle: int, why: str) -> Drawn:
        del self.rows[handle]
        return Drawn(handle, None, "error", why)

    def _keep(self, staying: list[int]) -> None:
        if len(staying) < len(self.active):
            order = packed(staying)
            self.cache.keep(order)
            self.active = [self.active[slot] for slot in order]
            self.edits = None


def is_edited(model: Model) -> bool:
    """Whether `model` is inside `model.edited(...)`, where nothing else may run on it."""
    hooks = model.hf.base_model._forward_pre_hooks.values()
    return any(isinstance(getattr(hook, "__self__", None), Clock) for hook in hooks)


def _likeliest(
    logits: Logits, words: int, rows: Sequence[Row], heat: Sequence[float]
) -> dict[int, tuple[Tensor, tuple[tuple[int, float], ...]]]:
    """Log-probabilities [words] at temperature 1, and the likeliest tokens, of each row that asks, by slot."""
    told = {}
    for slot, row in enumerate(rows):
        if row.likeliest is not None:
            scores = (logits.values[slot, :words] * heat[slot]).log_softmax(-1)
            best = scores.topk(min(row.likeliest, words))
            told[slot] = (scores, tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))
    return told


def _compiled(model: Model, recipes: Sequence[Steering | None]) -> list[SiteEdit]:
    first = next((one for one in recipes if one is not None), None)
    return [] if first is None else type(first).compile_rows(recipes, model)


def _forward(
    model: Model,
    ids: Tensor,
    mask: Tensor | None,
    now: Positions,
    cache: RowCache,
    edits: Sequence[SiteEdit],
    record: bool,
) -> tuple[Tensor, list[Step]]:
    """The last hidden state [rows, d] after the new tokens `ids`, which the cache then holds, and what was edited."""
    with edit(model, edits, positions=lambda: now, record=record, must_act=False) as receipt:
        out = model.hf.base_model(
            input_ids=ids, attention_mask=mask, position_ids=now.absolute, past_key_values=cache, use_cache=True
        )
    cache.advance(ids.shape[1])
    return out.last_hidden_state[:, -1], receipt.steps
