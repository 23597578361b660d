"""Token ids as the pieces of text that people see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trimtab.lm.model import Model


def pieces(model: Model, token_ids: Sequence[int], start: int = 0) -> list[str]:
    """The text of each token from `start` on, so that joined they are the decoded text.

    A character that is spread over several tokens belongs to the last of them; the others are empty.
    """
    before = model.decode(token_ids[:start])
    out: list[str] = []
    for end in range(start + 1, len(token_ids) + 1):
        after = model.decode(token_ids[:end])
        unfinished = after.endswith("\ufffd") and end < len(token_ids)
        if unfinished or not after.startswith(before):
            out.append("")
            continue
        out.append(after[len(before) :])
        before = after
    return out
