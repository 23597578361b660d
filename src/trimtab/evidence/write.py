"""Writing the texts of all arms in one batch: every row with its own recipe, drawn as `generate` would draw it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.spec import Sampling
    from trimtab.steer.recipe import Recipe

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Line:
    """One text to write. Lines with the same prompt and sample number are drawn with the same random numbers.

    `words` stand before the prompt while the text is written, and are left out of what is returned.
    """

    prompt: str
    sample: int
    recipe: Recipe | None
    words: str = ""


def write(
    model: Model,
    lines: Sequence[Line],
    sampling: Sampling,
    seed: int,
    progress: Progress | None = None,
    batch_size: int | None = None,
) -> list[tuple[tuple[int, ...], int]]:
    """Token ids of each line, prompt included, and where the generated ones start. An end token is kept.

    `batch_size` None chooses from the free memory.
    """
    from trimtab.lm.decode import Row, decode
    from trimtab.lm.memory import rows_that_fit
    from trimtab.lm.sampling import stream_key
    from trimtab.steer.generate import check_scopes

    room = sampling.max_new_tokens
    rows = [
        Row(
            tuple(model.encode_prompt(f"{line.words}\n\n{line.prompt}" if line.words else line.prompt, room)),
            stream_key(seed, line.prompt, line.sample),
            sampling,
            line.recipe,
        )
        for line in lines
    ]
    for line, row in zip(lines, rows, strict=True):
        if line.recipe is not None:
            check_scopes(line.recipe, len(row.prompt), room)
    longest = max(len(row.prompt) for row in rows) + room
    written = decode(
        model,
        rows,
        batch_size=batch_size or rows_that_fit(model, longest),
        stops=model.eos_ids,
        progress=None if progress is None else lambda now: progress("writing", now.tokens, now.tokens + now.left),
    )
    starts = [
        tuple(model.encode_prompt(line.prompt)) if line.words else row.prompt
        for line, row in zip(lines, rows, strict=True)
    ]
    return [(start + one.tokens, len(start)) for start, one in zip(starts, written, strict=True)]
