"""What the server answers, field by field. Answers are made as plain values; that they fit is tested."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trimtab.spec import Spec

Reason = Annotated[
    Literal["stop", "length"] | None, Field(description="stop: at an end token or a stop string. length: max_tokens.")
]


class ErrorBody(Spec):
    """What went wrong."""

    message: Annotated[str, Field(description="What was given, what is valid, what to do.")]
    type: Annotated[str, Field(description="The kind of error.", examples=["invalid_request_error"])]
    param: Annotated[str | None, Field(description="The field at fault.", examples=["max_tokens"])]
    code: Annotated[str | None, Field(description="The error, for programs.", examples=["too_many_tokens"])]


class Error(Spec):
    """Every error has this shape, which is OpenAI's."""

    error: Annotated[ErrorBody, Field(description="What went wrong.")]


class ModelCard(Spec):
    """The model that is served."""

    id: Annotated[str, Field(description="The name that requests give as `model`.")]
    object: Annotated[Literal["model"], Field(description="What this is.")]
    created: Annotated[int, Field(description="When the server started, in seconds since 1970.")]
    owned_by: Annotated[str, Field(description="Always trimtab.")]


class ModelInList(ModelCard):
    """The model, and what may be used with it."""

    saes: Annotated[list[str], Field(description="Names of the SAEs; features are those of the first by default.")]
    recipes: Annotated[list[str], Field(description="Ids of the saved recipes.")]
    context: Annotated[int, Field(description="Most tokens of a prompt and its text together.")]


class ModelList(Spec):
    """One model."""

    object: Annotated[Literal["list"], Field(description="What this is.")]
    data: Annotated[list[ModelInList], Field(description="The model that is served.")]


class Usage(Spec):
    """Tokens that were counted."""

    prompt_tokens: Annotated[int, Field(description="Of all prompts, each once.")]
    completion_tokens: Annotated[int, Field(description="Of all texts.")]
    total_tokens: Annotated[int, Field(description="Both.")]


class RecipeUsed(Spec):
    """What the steering came to."""

    digest: Annotated[str, Field(description="Equal for equal recipes.")]
    code: Annotated[str, Field(description="The Python that makes it.")]


class Provenance(Spec):
    """What it takes to write the same again."""

    seed: Annotated[int, Field(description="The seed that was given or drawn.")]
    recipe: Annotated[RecipeUsed | None, Field(description="The recipe; null without steering.")]


class SiteReceipt(Spec):
    """What was done at one place in the model."""

    prompt_tokens: Annotated[int, Field(description="Tokens of the prompt that were edited.")]
    generated_tokens: Annotated[
        int, Field(description="Tokens of the text that were edited; the last one is not read.")
    ]
    ratio: Annotated[float, Field(description="Mean of ||change|| / ||residual|| over them.")]


Receipt = Annotated[
    dict[str, SiteReceipt] | None, Field(description="By site, what was edited; only where the request asks for it.")
]


class CompletionScores(Spec):
    """Log-probabilities of a text's tokens, steered, at temperature 1."""

    tokens: Annotated[list[str], Field(description="The tokens.")]
    token_logprobs: Annotated[list[float | None], Field(description="Of each token.")]
    top_logprobs: Annotated[list[dict[str, float]], Field(description="Of the likeliest tokens in its place.")]
    text_offset: Annotated[list[int], Field(description="Where in the text each token begins.")]


class CompletionChoice(Spec):
    """One text."""

    index: Annotated[int, Field(description="Its number: prompt by prompt, n for each.")]
    text: Annotated[str, Field(description="The text without the prompt.")]
    logprobs: Annotated[CompletionScores | None, Field(description="Where `logprobs` asks for them.")]
    finish_reason: Reason
    receipt: Receipt = None


class _Any(Spec):
    id: Annotated[str, Field(description="A name for this answer.")]
    created: Annotated[int, Field(description="When, in seconds since 1970.")]
    model: Annotated[str, Field(description="The model.")]
    system_fingerprint: Annotated[str, Field(description="Digest of the model's weights.")]


class _Answer(_Any):
    usage: Annotated[Usage, Field(description="Tokens that were counted.")]
    trimtab: Annotated[Provenance, Field(description="Extra: what it takes to write the same again.")]


class _Event(_Any):
    usage: Annotated[
        Usage | None,
        Field(description="Null, and counted in an event of its own at the end, where include_usage asks."),
    ] = None
    trimtab: Annotated[Provenance | None, Field(description="Extra: comes with `usage`.")] = None


class Completion(_Answer):
    """The texts."""

    object: Annotated[Literal["text_completion"], Field(description="What this is.")]
    choices: Annotated[list[CompletionChoice], Field(description="The texts.")]


class CompletionChunk(_Event):
    """A piece of a text. After the last one comes [DONE]; an error ends the stream instead, in the shape of Error."""

    object: Annotated[Literal["text_completion"], Field(description="What this is.")]
    choices: Annotated[list[CompletionChoice], Field(description="One piece; finish_reason comes with the last.")]


class ChatCandidate(Spec):
    """A token and its log-probability, steered, at temperature 1."""

    token: Annotated[str, Field(description="The token as text.")]
    logprob: Annotated[float | None, Field(description="Natural logarithm of its probability.")]
    bytes: Annotated[list[int] | None, Field(description="Its UTF-8; null for a part of a character.")]


class ChatToken(ChatCandidate):
    """A token of the answer."""

    top_logprobs: Annotated[list[ChatCandidate], Field(description="The likeliest tokens in its place.")]


class ChatScores(Spec):
    """Log-probabilities of an answer's tokens."""

    content: Annotated[list[ChatToken], Field(description="Token by token.")]
    refusal: Annotated[None, Field(description="Always null.")]


class ChatAnswer(Spec):
    """A message of the model."""

    role: Annotated[Literal["assistant"], Field(description="Who says it.")]
    content: Annotated[str, Field(description="What is said.")]
    refusal: Annotated[None, Field(description="Always null.")]


class ChatChoice(Spec):
    """One answer."""

    index: Annotated[int, Field(description="Its number.")]
    message: Annotated[ChatAnswer, Field(description="The answer.")]
    logprobs: Annotated[ChatScores | None, Field(description="Where `logprobs` asks for them.")]
    finish_reason: Reason
    receipt: Receipt = None


class ChatDelta(Spec):
    """More of a message."""

    role: Annotated[Literal["assistant"] | None, Field(description="In the first piece.")] = None
    content: Annotated[str | None, Field(description="What is said next.")] = None


class ChatPiece(Spec):
    """A piece of an answer."""

    index: Annotated[int, Field(description="The answer's number.")]
    delta: Annotated[ChatDelta, Field(description="More of its message.")]
    logprobs: Annotated[ChatScores | None, Field(description="Where `logprobs` asks for them.")]
    finish_reason: Reason
    receipt: Receipt = None


class ChatChunk(_Event):
    """A piece of an answer. After the last one comes [DONE]; an error, in the shape of Error, ends the stream too."""

    object: Annotated[Literal["chat.completion.chunk"], Field(description="What this is.")]
    choices: Annotated[list[ChatPiece], Field(description="One piece; finish_reason comes with the last.")]


class ChatCompletion(_Answer):
    """The answers."""

    object: Annotated[Literal["chat.completion"], Field(description="What this is.")]
    choices: Annotated[list[ChatChoice], Field(description="The answers.")]


class RecipeNames(Spec):
    """What is in the folder."""

    recipes: Annotated[list[str], Field(description="Ids, sorted.")]


class RecipeFile(Spec):
    """A saved recipe."""

    id: Annotated[str, Field(description="Its name.")]
    digest: Annotated[str, Field(description="Equal for equal recipes.")]
    code: Annotated[str, Field(description="The Python that makes it.")]
    edits: Annotated[list[dict[str, Any]], Field(description="Its edits: operation, features, strengths, unit, scope.")]
    about: Annotated[dict[str, Any], Field(description="Where it comes from, and what was measured of it.")]


class Job(Spec):
    """Long work, and how far it is."""

    id: Annotated[str, Field(description="Its name in /api/jobs.")]
    kind: Annotated[Literal["contrast", "verify", "dose"], Field(description="What is done.")]
    state: Annotated[Literal["running", "done", "failed", "cancelled"], Field(description="Whether it goes on.")]
    stage: Annotated[str, Field(description="What it is at.")]
    done: Annotated[int, Field(description="How much of the stage is done.")]
    total: Annotated[int, Field(description="How much the stage is.")]
    result: Annotated[
        Any, Field(description="When done: what `trimtab find`, `verify` or `dose` print with --json. Else null.")
    ]
    error: Annotated[str | None, Field(description="When failed: why.")]


class JobList(Spec):
    """The last jobs."""

    jobs: Annotated[list[Job], Field(description="The newest first, without results.")]


class Health(Spec):
    """Whether the thread that runs the model is there."""

    status: Annotated[Literal["ok", "stopped"], Field(description="ok, or stopped with status 503.")]
