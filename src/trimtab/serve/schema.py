"""What /v1/completions and /v1/chat/completions take. What OpenAI has and this server has not is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trimtab.serve.body import Body
from trimtab.serve.described import example
from trimtab.serve.steering import Wanted
from trimtab.spec import Spec

Stop = Annotated[str, Field(min_length=1, max_length=200)]
Neutral = Annotated[float | None, Field(ge=0, le=0, description="Only 0: penalties are not supported.")]


class StreamOptions(Spec):
    """How to stream."""

    include_usage: Annotated[bool | None, Field(description="End with a chunk that counts tokens.")] = None
    include_obfuscation: Annotated[bool | None, Field(description="Accepted and ignored.")] = None


class Request(Body):
    """What both kinds of completion share."""

    model: Annotated[str, Field(description="The name that /v1/models gives.")]
    n: Annotated[int | None, Field(ge=1, le=128, description="Texts for each prompt.")] = None
    seed: Annotated[
        int | None,
        Field(ge=-(2**63), lt=2**63, description="Same seed, same texts. Drawn and told in the answer when not given."),
    ] = None
    temperature: Annotated[float | None, Field(ge=0, le=100, description="0 is greedy; 1 by default.")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="Draw from the likeliest tokens of this share.")] = (
        None
    )
    top_k: Annotated[int | None, Field(ge=1, le=2**31, description="Extra: draw from this many likeliest tokens.")] = (
        None
    )
    min_p: Annotated[
        float | None, Field(ge=0, le=1, description="Extra: draw from tokens this share as likely as the likeliest.")
    ] = None
    stop: Annotated[
        Stop | Annotated[tuple[Stop, ...], Field(max_length=4)] | None,
        Field(description="The text ends before the first of these."),
    ] = None
    stream: Annotated[bool | None, Field(description="Answer piece by piece, as server-sent events.")] = None
    stream_options: Annotated[StreamOptions | None, Field(description="How to stream.")] = None
    steering: Annotated[Wanted | None, Field(description="Extra: what to change while the text is written.")] = None
    receipt: Annotated[
        bool, Field(description="Extra: tell for each text which tokens were edited, and by how much.")
    ] = False
    user: Annotated[str | None, Field(description="Accepted and ignored.")] = None
    presence_penalty: Neutral = None
    frequency_penalty: Neutral = None
    logit_bias: Annotated[dict[str, Any] | None, Field(max_length=0, description="Not supported.")] = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else self.stop


class CompletionRequest(Request):
    """POST /v1/completions."""

    prompt: Annotated[
        str | Annotated[tuple[str, ...], Field(min_length=1, max_length=128)],
        Field(description="One or more texts to continue."),
    ]
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="Longest continuation, 16 by default.")] = None
    logprobs: Annotated[
        int | None, Field(ge=0, le=20, description="Log-probabilities of each token and of this many likeliest ones.")
    ] = None
    best_of: Annotated[int | None, Field(ge=1, le=128, description="Only the value of n.")] = None
    echo: Annotated[Literal[False] | None, Field(description="Not supported.")] = None
    suffix: Annotated[Literal[""] | None, Field(description="Not supported.")] = None

    model_config = example(
        {
            "model": "gemma-3-270m",
            "prompt": "The best thing about the weekend is",
            "max_tokens": 40,
            "seed": 1,
            "steering": {"features": [{"feature": 11330, "strength": 0.5}]},
            "receipt": True,
        }
    )


class Part(Spec):
    """A part of a message."""

    type: Annotated[Literal["text"], Field(description="Only text.")]
    text: Annotated[str, Field(description="What is said.")]


class Message(Spec):
    """A message of a conversation."""

    role: Annotated[Literal["system", "developer", "user", "assistant"], Field(description="Who says it.")]
    content: Annotated[str | tuple[Part, ...], Field(description="What is said.")]
    name: Annotated[str | None, Field(description="Accepted and ignored.")] = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Spec):
    """Plain text."""

    type: Annotated[Literal["text"], Field(description="Only text.")]


class ChatRequest(Request):
    """POST /v1/chat/completions."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=256, description="The conversation.")]
    max_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="Longest answer.")] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=2**31, description="The same, by its new name.")] = None
    logprobs: Annotated[bool | None, Field(description="Tell the log-probability of each token.")] = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20, description="And those of this many likeliest ones.")] = None
    response_format: Annotated[TextFormat | None, Field(description="Only text.")] = None
    tools: Annotated[tuple[Any, ...] | None, Field(max_length=0, description="Not supported.")] = None
    tool_choice: Annotated[Literal["none", "auto"] | None, Field(description="Tools are not supported.")] = None
    parallel_tool_calls: Annotated[bool | None, Field(description="Accepted and ignored.")] = None
    store: Annotated[Literal[False] | None, Field(description="Nothing is stored.")] = None
    metadata: Annotated[dict[str, str] | None, Field(description="Accepted and ignored.")] = None

    model_config = example(
        {
            "model": "a-chat-model",
            "messages": [{"role": "user", "content": "How was your weekend?"}],
            "max_tokens": 40,
            "steering": "sea",
        }
    )
