"""What OpenAI's answers look like, whole and in pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
            "top_logprobs": [{_name(model, one, token): score for token, score in one.drawn.top} for one in tokens],
            "text_offset": [one.offset for one in tokens],
        }


def _chat_score(model: Model, one: Scored) -> dict[str, Any]:
    def told(text: str, score: float | None) -> dict[str, Any]:
        return {"token": text, "logprob": score, "bytes": None if "\ufffd" in text else list(text.encode())}

    top = [told(_name(model, one, token), score) for token, score in one.drawn.top]
    return {**told(one.piece, one.drawn.logprob), "top_logprobs": top}


def _name(model: Model, one: Scored, token: int) -> str:
    return one.piece if token == one.drawn.token else str(model.tokenizer.decode([token]))


ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What was given, what is valid, what to do."},
                "type": {"type": "string", "description": "The kind of error."},
                "param": {"type": ["string", "null"], "description": "The field at fault."},
                "code": {"type": ["string", "null"], "description": "The error, for programs."},
            },
        }
    },
}


def documented(ok: str, *, code: int = 200, events: bool = False) -> dict[int | str, Mapping[str, Any]]:
    """The `responses` of a route: the good one, and errors."""
    found: dict[int | str, Mapping[str, Any]] = {code: {"description": ok}}
    if events:
        found[code] = {"description": ok, "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    said = {
        400: "The request is not valid.",
        401: "The key is missing or wrong.",
        403: "The page that asks is of another origin.",
        404: "There is no such thing.",
        408: "It took longer than the server allows.",
        409: "It is there already, or something of its kind is running.",
        413: "The body is too large.",
        415: "The body is not application/json.",
        503: "The server is full, or shutting down; Retry-After says when to come again.",
    }
    content = {"application/json": {"schema": ERROR}}
    return found | {status: {"description": text, "content": content} for status, text in said.items()}


MODELS: dict[int | str, Any] = dict(documented("The model."))
COMPLETION: dict[int | str, Any] = dict(
    documented("The texts, with usage and `trimtab`: the seed and the recipe.", events=True)
)
CHAT: dict[int | str, Any] = dict(documented("The answers, with usage and `trimtab`.", events=True))
