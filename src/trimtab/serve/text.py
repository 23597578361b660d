"""From tokens as they come to text that may be sent: whole characters, and nothing of a stop string."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.lm.rows import Drawn


class Scored(NamedTuple):
    """A token with its scores, the text that it added, and where in the whole text that begins."""

    drawn: Drawn
    piece: str
    offset: int


class Text:
    """One text under way. `text` is what may be shown of it, `finished` why it ended (None: it goes on)."""

    def __init__(self, model: Model, stops: Sequence[str] = ()) -> None:
        self.model, self.stops = model, stops
        self.tokens: list[int] = []
        self.text = ""
        self.decoded = ""
        self.waiting: deque[Scored] = deque()
        self.finished: Literal["stop", "length"] | None = None

    def push(self, drawn: Drawn) -> str:
        """Take the next token; what may be shown now and could not before."""
        assert drawn.token is not None
        self.tokens.append(drawn.token)
        whole = self._decoded(drawn)
        cut = min((at for stop in self.stops if (at := whole.find(stop)) >= 0), default=None)
        if cut is not None:
            whole, self.finished = whole[:cut], "stop"
        elif drawn.finished is not None:
            self.finished = "length" if drawn.finished == "length" else "stop"
        else:
            whole = whole.rstrip("\ufffd")  # the beginning of a character
            whole = whole[: len(whole) - self._held(whole)]
        if len(whole) <= len(self.text) or not whole.startswith(self.text):
            return ""
        new, self.text = whole[len(self.text) :], whole
        return new

    def _decoded(self, drawn: Drawn) -> str:
        """The text of all tokens. A character that is spread over several tokens belongs to the last of them."""
        whole = self.model.decode(self.tokens)
        complete = whole if drawn.finished is not None else whole.rstrip("\ufffd")
        piece = complete[len(self.decoded) :] if complete.startswith(self.decoded) else ""
        if drawn.logprob is not None and drawn.finished != "eos":
            self.waiting.append(Scored(drawn, piece, len(self.decoded)))
        if piece:
            self.decoded = complete
        return whole

    def scored(self) -> list[Scored]:
        """The tokens with scores whose text has come to be shown since this was last asked."""
        found = []
        while self.waiting and self.waiting[0].offset < len(self.text):
            found.append(self.waiting.popleft())
        return found

    def _held(self, whole: str) -> int:
        """How much of the end may be the beginning of a stop string."""
        longest = max(map(len, self.stops), default=0)
        for n in range(min(longest - 1, len(whole)), 0, -1):
            if any(stop.startswith(whole[-n:]) for stop in self.stops):
                return n
        return 0
