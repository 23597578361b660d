"""What OpenAI's answers look like, whole and in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.serve.text import Scored


@dataclass(frozen=True)
class Shape:
    """The difference between completions and chat."""

    chat: bool

    @property
    def name(self) -> str:
        """What a whole answer calls itself."""
        return "chat.completion" if self.chat else "text_completion"

    @property
    def chunk_name(self) -> str:
        """What a piece calls itself."""
        return "chat.completion.chunk" if self.chat else "text_completion"

    def choice(self, number: int, text: str, scores: Any, finished: str | None) -> dict[str, Any]:
        """A text of a whole answer."""
        if not self.chat:
            return {"index": number, "text": text, "logprobs": scores, "finish_reason": finished}
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": number, "message": message, "logprobs": scores, "finish_reason": finished}

    def first(self, number: int) -> dict[str, Any]:
        """The piece with which a chat answer begins."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, number: int, new: str, scores: Any, finished: str | None) -> dict[str, Any]:
        """A piece of a text."""
        if not self.chat:
            return {"index": number, "text": new, "logprobs": scores, "finish_reason": finished}
        delta = {"content": new} if new else {}
        return {"index": number, "delta": delta, "logprobs": scores, "finish_reason": finished}

    def scores(self, model: Model, tokens: Sequence[Scored]) -> dict[str, Any]:
        """Log-probabilities of some tokens, and of the likeliest ones in their places."""
        if self.chat:
            return {"content": [_chat_score(model, one) for one in tokens], "refusal": None}
        return {
            "tokens": [one.piece for one in tokens],
            "token_logprobs": [one.drawn.logprob for one in tokens],
            "top_logprobs": [
                {token_name(model, one, token): score for token, score in one.drawn.top} for one in tokens
            ],
            "text_offset": [one.offset for one in tokens],
        }


def _chat_score(model: Model, one: Scored) -> dict[str, Any]:
    def told(text: str, score: float | None) -> dict[str, Any]:
        return {"token": text, "logprob": score, "bytes": None if "\ufffd" in text else list(text.encode())}

    top = [told(token_name(model, one, token), score) for token, score in one.drawn.top]
    return {**told(one.piece, one.drawn.logprob), "top_logprobs": top}


def token_name(model: Model, one: Scored, token: int) -> str:
    """A token as text; the one that was drawn as it stands in the text."""
    return one.piece if token == one.drawn.token else str(model.tokenizer.decode([token]))
