"""/v1/steer/completion and /v1/steer/completion-chat, for clients of Neuronpedia's inference server.

What it adds is added here in the same way: a length along decoder rows of length 1, or plain vectors, at every token.
The methods that do something else are refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from trimtab.errors import InputError
from trimtab.serve.answers import token_name
from trimtab.serve.described import WRITTEN, documented
from trimtab.serve.limits import ApiError
from trimtab.serve.neuronpedia_schema import (
    Candidate,
    ChatResult,
    ChatTurn,
    SteerChatRequest,
    SteerChatResponse,
    SteerCompletionRequest,
    SteerCompletionResponse,
    SteerFeature,
    SteerOutput,
    SteerRequest,
    Theirs,
    TokenScore,
    wire,
)
from trimtab.serve.openai import chat_prompt, event
from trimtab.serve.service import Service
from trimtab.serve.stream import Events, unless_gone
from trimtab.serve.text import Scored
from trimtab.serve.writing import Writing
from trimtab.spec import Sampling, Scope, finite
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

Answer = Callable[["_Outputs"], Theirs]


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Neuronpedia"])

    @routes.post(
        "/v1/steer/completion",
        responses=documented("The texts.", SteerCompletionResponse, (*WRITTEN, 429), SteerCompletionResponse),
    )
    async def completion(body: SteerCompletionRequest, request: Request) -> Response:
        """Continue a text with and without steering, as Neuronpedia's inference server does."""
        prompt = body.prompt.removeprefix(service.model.tokenizer.bos_token or "")

        def answer(outputs: _Outputs) -> Theirs:
            made = [
                SteerOutput(type=one, output=text, logprobs=scores)
                for one, (text, scores) in zip(body.types, outputs.all(), strict=True)
            ]
            return SteerCompletionResponse(outputs=tuple(made))

        return await _reply(service, body, request, prompt, Scope(bos=True), answer)

    @routes.post(
        "/v1/steer/completion-chat",
        responses=documented("The conversations.", SteerChatResponse, (*WRITTEN, 429), SteerChatResponse),
    )
    async def chat(body: SteerChatRequest, request: Request) -> Response:
        """Answer in a conversation with and without steering. Only for models whose tokenizer has a chat template."""
        prompt, raw, special = await run_in_threadpool(_conversation, service, body.prompt)
        scope = Scope(bos=True, exclude=() if body.steer_special_tokens else special)

        def answer(outputs: _Outputs) -> Theirs:
            made = [
                ChatResult(
                    raw=raw + text,
                    chat_template=(*body.prompt, ChatTurn(role="assistant", content=text)),
                    type=one,
                    logprobs=scores,
                )
                for one, (text, scores) in zip(body.types, outputs.all(), strict=True)
            ]
            return SteerChatResponse(outputs=tuple(made), input=ChatResult(raw=raw, chat_template=body.prompt))

        return await _reply(service, body, request, prompt, scope, answer)

    return routes


def _conversation(service: Service, turns: Sequence[ChatTurn]) -> tuple[str, str, tuple[int, ...]]:
    """The prompt, the same with the template's tokens, and where the tokens are that the tokenizer calls special."""
    prompt = chat_prompt(service, [{"role": turn.role, "content": turn.content} for turn in turns])
    tokenizer, ids = service.model.tokenizer, service.model.encode(prompt)
    special = set(tokenizer.all_special_ids)
    raw = str(tokenizer.decode(ids, skip_special_tokens=False))
    return prompt, raw, tuple(i for i, one in enumerate(ids) if one in special)


def recipe_of(service: Service, body: SteerRequest, scope: Scope) -> Recipe | None:
    """What the request adds; None when it wants no steered text. Raises `InputError` for what cannot be honoured."""
    if "STEERED" not in body.types:
        return None
    if (body.features is None) == (body.vectors is None):
        raise InputError("Give either features or vectors, and not both.")
    if body.steer_method != "SIMPLE_ADDITIVE":
        raise InputError(f"steerMethod {body.steer_method} is not supported here; only SIMPLE_ADDITIVE is.")
    recipe = Recipe()
    for one in body.vectors or ():
        vector = torch.tensor(one.steering_vector)
        if body.normalize_steering:
            vector = vector / finite(float(vector.norm()) or float("nan"), "The length of a vector to normalize")
        recipe += Recipe.vector(vector, one.hook, one.strength * body.strength_multiplier, scope=scope)
    strengths: dict[str, dict[int, float]] = {}
    for item in body.features or ():
        service.check_model(item.model)
        of_sae = strengths.setdefault(_sae(service, item).name, {})
        of_sae[item.index] = of_sae.get(item.index, 0.0) + item.strength * body.strength_multiplier
    for name, values in strengths.items():
        recipe += Recipe.add(service.saes[name], values, "raw", scope)
    if not recipe.edits:
        raise InputError("There is nothing to steer with: features or vectors is an empty list.")
    return recipe


def _sae(service: Service, feature: SteerFeature) -> SAE:
    """The SAE of that name, else the one whose block the source id begins with."""
    named = service.saes.get(feature.source)
    if named is not None:
        return named
    found = [sae for sae in service.saes.values() if feature.source.partition("-")[0] == str(sae.site.layer)]
    if len(found) != 1:
        have = ", ".join(f"{sae.name} (block {sae.site.layer})" for sae in service.saes.values()) or "none"
        raise InputError(f"The source {feature.source[:60]!r} does not name one SAE of this server, which has: {have}.")
    return found[0]


class _Outputs:
    """What has been written so far of each text."""

    def __init__(self, service: Service, writing: Writing, scored: bool) -> None:
        self.model, self.writing, self.scored = service.model, writing, scored
        self.scores: list[list[TokenScore]] = [[] for _ in writing.texts]

    def all(self) -> list[tuple[str, tuple[TokenScore, ...] | None]]:
        """(text, scores of its tokens) for each."""
        for mine, text in zip(self.scores, self.writing.texts, strict=True):
            mine.extend(self._score(one) for one in text.scored())
        both = zip(self.writing.texts, self.scores, strict=True)
        return [(text.text, tuple(mine) if self.scored else None) for text, mine in both]

    def _score(self, one: Scored) -> TokenScore:
        likeliest = [Candidate(token=token_name(self.model, one, id), logprob=score) for id, score in one.drawn.top]
        assert one.drawn.logprob is not None
        return TokenScore(token=one.piece, logprob=one.drawn.logprob, top_logprobs=tuple(likeliest))


async def _reply(
    service: Service, body: SteerRequest, request: Request, prompt: str, scope: Scope, answer: Answer
) -> Response:
    service.check_model(body.model)
    recipe = await run_in_threadpool(recipe_of, service, body, scope)
    recipes = [recipe if one == "STEERED" else None for one in body.types]
    sampling = Sampling(max_new_tokens=body.n_completion_tokens, temperature=body.temperature)
    likeliest = body.n_logprobs or None
    rows = await service.rows([prompt] * len(recipes), recipes, 1, sampling, int(body.seed), likeliest)
    if body.fail_if_busy and service.worker.rows + len(rows) > service.limits.slots:
        raise ApiError(429, "All places are taken, and failIfBusy asks not to wait.", code="busy", retry_after=2)
    writing = Writing(service, rows)
    outputs = _Outputs(service, writing, likeliest is not None)
    if body.stream:
        return Events(_frames(writing, lambda: wire(answer(outputs))), writing.close)
    try:
        await unless_gone(request, _all(writing))
        return JSONResponse(wire(answer(outputs)))
    finally:
        writing.close()


async def _all(writing: Writing) -> None:
    async for _ in writing.steps():
        pass


async def _frames(writing: Writing, answer: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
    """A frame with the whole answer so far whenever there is more of it, and one at the end."""
    try:
        async for _, new in writing.steps():
            if new:
                yield event(answer())
        yield event(answer())
    except ApiError as error:
        yield event(error.body())
