"""/v1/models, /v1/completions and /v1/chat/completions, as OpenAI's clients expect them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from trimtab.errors import InputError
from trimtab.lm.rows import Row
from trimtab.serve.answers import Shape
from trimtab.serve.described import WRITTEN, documented
from trimtab.serve.limits import ApiError
from trimtab.serve.responses import ChatChunk, ChatCompletion, Completion, CompletionChunk, ModelCard, ModelList
from trimtab.serve.schema import ChatRequest, CompletionRequest
from trimtab.serve.service import Service
from trimtab.serve.steering import recipe_of
from trimtab.serve.stream import Events, unless_gone
from trimtab.serve.text import Text
from trimtab.serve.writing import Writing
from trimtab.spec import Sampling

_DEFAULT_TOKENS = 16  # as OpenAI's completions have it


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["OpenAI"])
    started = int(time.time())

    def model() -> dict[str, Any]:
        return {"id": service.model.name, "object": "model", "created": started, "owned_by": "trimtab"}

    @routes.get("/v1/models", responses=documented("The model.", ModelList))
    async def models() -> JSONResponse:
        """The one model that is served, with the names of its SAEs and of the recipes."""
        more = {"saes": list(service.saes), "recipes": service.recipes.names(), "context": service.worker.longest}
        return JSONResponse({"object": "list", "data": [{**model(), **more}]})

    @routes.get("/v1/models/{name:path}", responses=documented("The model.", ModelCard, (404,)))
    async def one_model(name: Annotated[str, Path(description="The name that /v1/models gives.")]) -> JSONResponse:
        """The model, if this is its name."""
        service.check_model(name)
        return JSONResponse(model())

    @routes.post("/v1/completions", responses=documented("The texts.", Completion, WRITTEN, CompletionChunk))
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue one or more texts, steered if the request says so."""
        if body.best_of not in (None, body.n or 1):
            raise ApiError(400, "best_of is not supported; give n.", param="best_of")
        prompts = [body.prompt] if isinstance(body.prompt, str) else list(body.prompt)
        job = await _job(service, body, prompts, body.max_tokens or _DEFAULT_TOKENS, body.logprobs, Shape(chat=False))
        return await job.answer(request)

    @routes.post("/v1/chat/completions", responses=documented("The answers.", ChatCompletion, WRITTEN, ChatChunk))
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer in a conversation. Only for models whose tokenizer has a chat template."""
        if body.top_logprobs is not None and not body.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
        messages = [{"role": "system" if m.role == "developer" else m.role, "content": m.text} for m in body.messages]
        prompt = await run_in_threadpool(chat_prompt, service, messages)
        most = body.max_completion_tokens or body.max_tokens or service.limits.max_tokens
        likeliest = (body.top_logprobs or 0) if body.logprobs else None
        job = await _job(service, body, [prompt], most, likeliest, Shape(chat=True))
        return await job.answer(request)

    return routes


def chat_prompt(service: Service, messages: Sequence[Mapping[str, str]]) -> str:
    """The conversation as the model's template writes it. Raises `ApiError` (400) when it has none."""
    tokenizer = service.model.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        raise ApiError(
            400,
            f"{service.model.name} is not a chat model: its tokenizer has no chat template. Send a plain prompt to "
            "/v1/completions or /v1/steer/completion.",
            code="no_chat_template",
            param="messages",
        )
    try:
        text = str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template raises errors of its own for conversations that it does not take
        raise ApiError(400, f"The model's chat template refuses these messages: {error}", param="messages") from None
    return text.removeprefix(tokenizer.bos_token) if service.model.adds_bos else text


class _Job:
    """One request with its rows under way."""

    def __init__(
        self, service: Service, body: CompletionRequest | ChatRequest, rows: Sequence[Row], shape: Shape, about: Any
    ) -> None:
        self.service, self.body, self.rows, self.shape, self.about = service, body, rows, shape, about
        self.writing = Writing(service, rows, body.stops)
        self.base = {
            "id": f"{'chatcmpl' if shape.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.model.name,
            "system_fingerprint": service.model.fingerprint,
        }

    async def answer(self, request: Request) -> Response:
        if self.body.stream:
            return Events(self.events(), self.writing.close)
        try:
            return JSONResponse(await unless_gone(request, self.whole()))
        finally:
            self.writing.close()

    async def whole(self) -> dict[str, Any]:
        async for _ in self.writing.steps():
            pass
        choices = [
            self.shape.choice(number, text.text, self.scores(text), text.finished) | self.receipt(number)
            for number, text in enumerate(self.writing.texts)
        ]
        return {
            **self.base,
            "object": self.shape.name,
            "choices": choices,
            "usage": self.usage(),
            "trimtab": self.about,
        }

    def scores(self, text: Text) -> dict[str, Any] | None:
        if self.rows[0].likeliest is None:
            return None
        return self.shape.scores(self.service.model, text.scored())

    def receipt(self, number: int) -> dict[str, Any]:
        return {"receipt": self.writing.touched[number]} if self.body.receipt else {}

    def usage(self) -> dict[str, int]:
        read = sum(len(row.prompt) for row in self.rows[:: self.body.n or 1])
        written = sum(len(text.tokens) for text in self.writing.texts)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events: a chunk for each piece of text, one that says why a text ended, and [DONE]."""
        options = self.body.stream_options
        counted: dict[str, Any] = {"usage": None} if options and options.include_usage else {}
        base = {**self.base, "object": self.shape.chunk_name, **counted}
        try:
            if self.shape.chat:
                for number in range(len(self.rows)):
                    yield event({**base, "choices": [self.shape.first(number)]})
            async for number, new in self.writing.steps():
                text = self.writing.texts[number]
                if not new and text.finished is None:
                    continue
                choice = self.shape.delta(number, new, self.scores(text), text.finished)
                more = self.receipt(number) if text.finished is not None else {}
                yield event({**base, "choices": [choice | more]})
            if counted:
                yield event({**base, "choices": [], "usage": self.usage(), "trimtab": self.about})
            yield "data: [DONE]\n\n"
        except ApiError as error:
            yield event(error.body())


async def _job(
    service: Service,
    body: CompletionRequest | ChatRequest,
    prompts: Sequence[str],
    max_tokens: int,
    likeliest: int | None,
    shape: Shape,
) -> _Job:
    service.check_model(body.model)
    sampling = Sampling(
        max_new_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
    )
    recipe = None
    if body.steering is not None:
        recipe = await run_in_threadpool(recipe_of, body.steering, service.saes, service.recipes)
    if body.receipt and recipe is None:
        raise InputError("There is no receipt without steering.")
    seed = secrets.randbits(31) if body.seed is None else body.seed
    recipes = [recipe] * len(prompts)
    rows = await service.rows(prompts, recipes, body.n or 1, sampling, seed, likeliest, body.receipt)
    about = {"seed": seed, "recipe": None if recipe is None else {"digest": recipe.digest, "code": repr(recipe)}}
    return _Job(service, body, rows, shape, about)


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"
