"""The batched decode loop over token ids: all rows through an `Engine`, in the order in which they were given."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trimtab.errors import InputError
from trimtab.lm.engine import Engine
from trimtab.lm.packed import packed_layers
from trimtab.lm.rows import Row

if TYPE_CHECKING:
    from trimtab.lm.model import Model

__all__ = ["Progress", "Row", "Written", "decode"]


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
    engine = Engine(
        model,
        slots=min(batch_size, len(rows)),
        prompt=max(len(row.prompt) for row in rows),
        longest=max(len(row.prompt) + row.sampling.max_new_tokens for row in rows),
        stops=stops,
    )
    for row in rows:
        engine.add(row)
    tokens: list[list[int]] = [[] for _ in rows]
    written: dict[int, Written] = {}
    began = time.monotonic()
    with packed_layers(model):
        while engine.busy:
            for drawn in engine.step():
                if drawn.token is None:
                    raise InputError(drawn.error)
                mine = tokens[drawn.handle]
                mine.append(drawn.token)
                if drawn.finished == "eos" or drawn.finished == "length":
                    written[drawn.handle] = Written(tuple(mine), drawn.finished)
            if progress is not None:
                left = sum(
                    rows[i].sampling.max_new_tokens - len(tokens[i]) for i in range(len(rows)) if i not in written
                )
                total = sum(map(len, tokens))
                progress(Progress(len(written), len(rows), total, left, time.monotonic() - began))
    return [written[row] for row in range(len(rows))]
