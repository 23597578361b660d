"""Where every token of a forward pass stands: its absolute position, and whether it is prompt or generated.

What one can see is a stream of forward passes. The rules, in order:

1. A pass whose cache holds exactly the tokens seen so far continues the sequence: its tokens are generated,
   however many they are.
2. A pass without a cache whose ids begin with those of the pass before is the same sequence grown: the first pass's
   tokens stay the prompt, the others are generated.
3. Assisted, speculative and prompt-lookup decoding are refused: they try tokens that they may take back. They show by
   asking for several logits of a pass with a cache, or by going back within a cache.
4. Anything else starts a new sequence, and all its tokens are the prompt. A prompt of one token is a prompt.
5. The passes that `generate` of transformers makes to read its prompt are prompt, in however many chunks it reads it
   (`prefill_chunk_size`), also when they continue a cache.

Two limits follow. Whoever feeds one prompt to the cache in several pieces by hand has the later pieces counted as
generated. And a whole text (prompt and continuation) scored in a single pass is all prompt, unless `positions` says
otherwise.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.spec import Scope, Site

if TYPE_CHECKING:
    from torch import nn


_ASSISTED = (
    "This looks like assisted, speculative or prompt-lookup decoding, which tries tokens and takes them back; steering "
    "cannot follow that. Generate without an assistant."
)


@dataclass(frozen=True, eq=False)
class Positions:
    """One forward pass, token by token; every tensor is [rows, seq].

    `absolute` (int64) counts from 0 at the row's first real token; `generated`, `real` and `bos` are bool. Padding is
    not `real`, and its `absolute` is meaningless.
    """

    absolute: Tensor
    generated: Tensor
    real: Tensor
    bos: Tensor


@dataclass
class _Seen:
    """What is known of the sequence after a forward pass."""

    length: int  # of the buffer, padding included
    prompt: int  # how much of it the first pass had
    counts: Tensor  # real tokens so far, per row
    ids: Tensor | None  # of the last pass, if it used no cache
    cache: Any


class Clock:
    """Follows the forward passes of the transformers model `hf` and answers `now` inside them.

    `positions`, when given, is called once per pass instead of working the positions out.
    """

    def __init__(self, hf: Any, bos_id: int | None, positions: Callable[[], Positions] | None = None) -> None:
        self._hf, self._base, self._bos_id, self._positions = hf, hf.base_model, bos_id, positions
        self._names = list(inspect.signature(self._base.forward).parameters)
        self._seen: _Seen | None = None
        self._now: Positions | None = None
        self._in_prompt = False

    def attach(self, handles: list[Any]) -> None:
        """Place the hooks, appending their handles as they are placed."""
        if hasattr(self._hf, "_prefill"):
            handles.append(_Around(self._hf, "_prefill", self._reading_prompt))
        handles.append(self._hf.register_forward_pre_hook(self._refuse_candidates, with_kwargs=True))
        handles.append(self._base.register_forward_pre_hook(self._start, with_kwargs=True))
        handles.append(self._base.register_forward_hook(self._end, with_kwargs=True, always_call=True))

    def now(self, h: Tensor, site: Site) -> Positions:
        """Positions of the pass under way, checked against the residual `h` [rows, seq, d] and on its device."""
        if self._now is None:
            raise UnsupportedError(
                f"The residual stream at {site} was computed outside of a forward pass of the model, so the positions "
                "of its tokens are not known; call the whole model."
            )
        if self._now.absolute.shape != h.shape[:2]:
            raise UnsupportedError(
                f"The forward pass was given {tuple(self._now.absolute.shape)} tokens, but the stream at {site} has "
                f"{tuple(h.shape[:2])}; edits would land in the wrong places."
            )
        if self._now.absolute.device != h.device:
            now = self._now
            self._now = Positions(*(part.to(h.device) for part in (now.absolute, now.generated, now.real, now.bos)))
        return self._now

    @contextmanager
    def _reading_prompt(self) -> Iterator[None]:
        self._in_prompt = True
        try:
            yield
        finally:
            self._in_prompt = False

    def _refuse_candidates(self, _module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        keep = kwargs.get("logits_to_keep")
        several = isinstance(keep, int) and keep > 1
        if several and self._positions is None and kwargs.get("past_key_values") is not None:
            raise UnsupportedError(_ASSISTED)

    def _start(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._positions is not None:
            self._now = self._positions()
            return
        given = {**dict(zip(self._names, args, strict=False)), **kwargs}
        self._now = self._advance(
            given.get("input_ids"),
            given.get("inputs_embeds"),
            given.get("attention_mask"),
            given.get("past_key_values"),
        )

    def _end(self, _module: nn.Module, _args: Any, _kwargs: Any, output: Any) -> None:
        self._now = None
        if self._seen is not None and self._seen.cache is None:
            # The model made a cache of its own: remember it, to know it again in the next pass.
            self._seen.cache = getattr(output, "past_key_values", None)

    def _advance(self, ids: Tensor | None, embeds: Tensor | None, mask: Any, cache: Any) -> Positions:
        tokens = ids if ids is not None else embeds
        if tokens is None:
            raise InputError("The forward pass was given neither input_ids nor inputs_embeds.")
        rows, length = tokens.shape[:2]
        past = _length(cache)
        seen = self._same_sequence(ids, rows, length, past, cache)
        real = _real(mask, rows, length, tokens.device)
        before = self._counts_before(seen, mask, rows, length, past, tokens.device)
        absolute = before[:, None] + real.long().cumsum(1) - 1
        prompt = seen.prompt if seen is not None and not self._in_prompt else past + length
        index = torch.arange(past, past + length, device=tokens.device).expand(rows, length)
        if ids is None:
            bos = real & (absolute == 0)
        elif self._bos_id is None:
            bos = torch.zeros_like(real)
        else:
            bos = real & (ids == self._bos_id)
        counts = before + real.sum(1)
        self._seen = _Seen(past + length, prompt, counts, ids if cache is None else None, cache)
        return Positions(absolute, index >= prompt, real, bos)

    def _same_sequence(self, ids: Tensor | None, rows: int, length: int, past: int, cache: Any) -> _Seen | None:
        seen = self._seen
        if seen is None or len(seen.counts) != rows:
            return None
        if past > 0:
            if seen.cache is cache and past < seen.length:
                raise UnsupportedError(_ASSISTED)
            same = seen.cache is None or seen.cache is cache
            return seen if same and past == seen.length else None
        if cache is not None or ids is None or seen.ids is None or length <= seen.length:
            return None
        # Beam search reorders rows, so a row may continue any of the rows before.
        begins = (ids[:, None, : seen.length] == seen.ids[None].to(ids.device)).all(-1).any(1)
        return seen if bool(begins.all()) else None

    def _counts_before(
        self, seen: _Seen | None, mask: Any, rows: int, length: int, past: int, device: torch.device
    ) -> Tensor:
        """Real tokens [rows] that precede this pass."""
        if past == 0:
            return torch.zeros(rows, dtype=torch.long, device=device)
        if mask is not None and mask.shape[1] == past + length:
            return (mask[:, :past] != 0).sum(1).to(device)
        if seen is not None:
            return seen.counts.to(device)
        return torch.full((rows,), past, dtype=torch.long, device=device)


class _Around:
    """Runs a method of `owner` inside a context until `remove` is called, as a hook's handle would be."""

    def __init__(self, owner: Any, name: str, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._owner, self._name, self._before = owner, name, vars(owner).get(name)
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with context():
                return plain(*args, **kwargs)

        setattr(owner, name, inside)

    def remove(self) -> None:
        """Put back what was there."""
        delattr(self._owner, self._name)
        if self._before is not None:
            setattr(self._owner, self._name, self._before)


def selected(scope: Scope, now: Positions) -> Tensor:
    """Which tokens [rows, seq] of this forward pass `scope` selects."""
    mask = now.real & torch.where(now.generated, scope.generated, scope.prompt)
    if not scope.bos:
        mask = mask & ~now.bos
    if scope.window is not None:
        start, stop = scope.window
        mask = mask & (now.absolute >= start)
        if stop is not None:
            mask = mask & (now.absolute < stop)
    for position in scope.exclude:
        mask = mask & (now.absolute != position)
    return mask


def describe(scope: Scope) -> str:
    """A scope in words, for messages."""
    parts = [name for name in ("prompt", "generated", "bos") if getattr(scope, name)]
    if scope.window is not None:
        parts.append(f"window {scope.window}")
    if scope.exclude:
        parts.append(f"without {list(scope.exclude)}")
    return ", ".join(parts)


def _real(mask: Any, rows: int, length: int, device: torch.device) -> Tensor:
    if mask is None:
        return torch.ones(rows, length, dtype=torch.bool, device=device)
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise UnsupportedError(
            "The attention mask is not the plain [rows, tokens] one, so padding cannot be seen (a static or compiled "
            "cache does this); generate with the default cache."
        )
    return mask[:, -length:].to(device) != 0


def _length(cache: Any) -> int:
    if cache is None:
        return 0
    if not hasattr(cache, "get_seq_length"):
        raise UnsupportedError(
            f"A cache of type {type(cache).__name__} does not tell its length; use the default cache."
        )
    return int(cache.get_seq_length())
