"""What Neuronpedia's inference server takes and answers for steering.

The shapes are those of its `POST /v1/steer/completion` and `/v1/steer/completion-chat` (hijohnnylin/neuronpedia,
apps/inference, 2026): camelCase on the wire, and snake_case is taken too.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from trimtab.serve.body import Body
from trimtab.serve.steering import Bounded
from trimtab.spec import Spec
from trimtab.steer.exchange.neuronpedia import WIDEST

Type = Literal["STEERED", "DEFAULT"]
Method = Literal["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP", "PROJECTION_CAP"]


class Theirs(Spec):
    """Base: camelCase names, and snake_case ones in requests."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)


class SteerFeature(Theirs):
    """A feature of an SAE."""

    model: Annotated[str, Field(description="The name that /v1/models gives.", examples=["gemma-3-270m"])]
    source: Annotated[
        str,
        Field(
            max_length=200,
            description="The SAE: its name here, or Neuronpedia's source id, of which the block's number is looked at.",
            examples=["7-trimtab-res-16k"],
        ),
    ]
    index: Annotated[int, Field(ge=0, le=2**31, description="The feature's index.", examples=[11330])]
    strength: Annotated[
        Bounded, Field(description="Length that is added along the feature's decoder row of length 1.", examples=[300])
    ]
    steering_vector: Annotated[None, Field(description="Not taken: give `vectors`.")] = None


class SteerVector(Theirs):
    """A plain vector."""

    steering_vector: Annotated[
        tuple[Bounded, ...], Field(min_length=1, max_length=WIDEST, description="As many numbers as the model is wide.")
    ]
    strength: Annotated[Bounded, Field(description="Multiplies the vector.")]
    hook: Annotated[str, Field(max_length=100, description="Where it is added.", examples=["blocks.7.hook_resid_post"])]


class SteerRequest(Body, Theirs):
    """What completion and chat share."""

    model: Annotated[str, Field(description="The name that /v1/models gives.", examples=["gemma-3-270m"])]
    steer_method: Annotated[
        Method, Field(description="Only SIMPLE_ADDITIVE, which adds the vectors; the others are refused.")
    ]
    normalize_steering: Annotated[bool, Field(description="Bring every vector to length 1 first.")]
    types: Annotated[
        tuple[Type, ...],
        Field(
            min_length=1, max_length=2, description="Texts that are written: with the steering, without it, or both."
        ),
    ]
    features: Annotated[
        tuple[SteerFeature, ...] | None, Field(max_length=256, description="Features to steer with, or `vectors`.")
    ] = None
    vectors: Annotated[
        tuple[SteerVector, ...] | None, Field(max_length=64, description="Vectors to steer with, or `features`.")
    ] = None
    n_completion_tokens: Annotated[int, Field(ge=1, le=2**31, description="Longest text.", examples=[32])]
    temperature: Annotated[float, Field(ge=0, le=100, description="0 is greedy.", examples=[1])]
    strength_multiplier: Annotated[Bounded, Field(description="Multiplies every strength.", examples=[1])]
    freq_penalty: Annotated[
        float, Field(description="Accepted and ignored, as Neuronpedia's own server does.", examples=[0])
    ]
    seed: Annotated[float, Field(ge=-(2**53), le=2**53, description="Same seed, same texts.", examples=[16])]
    stream: Annotated[
        bool | None, Field(description="Answer as server-sent events; each holds the whole answer so far.")
    ] = False
    n_logprobs: Annotated[
        int | None, Field(ge=0, le=10, description="Tell each token's log-probability, and this many likeliest ones.")
    ] = 0
    fail_if_busy: Annotated[bool, Field(description="Answer 429 at once where the texts would have to wait.")] = False


class SteerCompletionRequest(SteerRequest):
    """POST /v1/steer/completion."""

    prompt: Annotated[str, Field(description="The text to continue.", examples=["The best thing about the weekend is"])]


class ChatTurn(Theirs):
    """A message of a conversation."""

    role: Annotated[
        str, Field(max_length=40, description="Who says it, in the words of the model's template.", examples=["user"])
    ]
    content: Annotated[str, Field(description="What is said.", examples=["Hello"])]


class SteerChatRequest(SteerRequest):
    """POST /v1/steer/completion-chat."""

    prompt: Annotated[tuple[ChatTurn, ...], Field(min_length=1, max_length=256, description="The conversation.")]
    steer_special_tokens: Annotated[
        bool, Field(description="False leaves BOS and the tokens alone that the tokenizer calls special.")
    ]


class Candidate(Theirs):
    """A token that the model weighed."""

    token: Annotated[str, Field(description="The token as text.")]
    logprob: Annotated[float, Field(description="Natural logarithm of its probability, edits included.")]


class TokenScore(Candidate):
    """A token that was written."""

    top_logprobs: Annotated[tuple[Candidate, ...], Field(description="The likeliest tokens in its place.")]


class SteerOutput(Theirs):
    """A text."""

    type: Annotated[Type, Field(description="Whether it was steered.")]
    output: Annotated[str, Field(description="The text without the prompt; in a stream, all of it so far.")]
    logprobs: Annotated[
        tuple[TokenScore, ...] | None, Field(description="Its tokens; only where nLogprobs asks for them.")
    ] = None


class SteerCompletionResponse(Theirs):
    """The texts."""

    outputs: Annotated[tuple[SteerOutput, ...], Field(description="One for each of `types`, in its order.")]


class ChatResult(Theirs):
    """A conversation."""

    raw: Annotated[str, Field(description="As the model reads it, with the template's tokens.")]
    chat_template: Annotated[tuple[ChatTurn, ...], Field(description="Its messages.")]
    type: Annotated[Type | None, Field(description="Whether the last message was steered.")] = None
    logprobs: Annotated[
        tuple[TokenScore, ...] | None, Field(description="Its tokens; only where nLogprobs asks for them.")
    ] = None


class SteerChatResponse(Theirs):
    """The conversations."""

    outputs: Annotated[tuple[ChatResult, ...], Field(description="One for each of `types`, in its order.")]
    input: Annotated[ChatResult, Field(description="The conversation as it was sent.")]


def wire(answer: Theirs) -> dict[str, Any]:
    """An answer as it is sent: what is not there is left out, as Neuronpedia's clients expect."""
    return answer.model_dump(mode="json", by_alias=True, exclude_none=True)
