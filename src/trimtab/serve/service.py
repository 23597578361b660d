"""Everything that the routes share, and the way from a request's rows to its tokens as they are drawn."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from starlette.concurrency import run_in_threadpool

from trimtab.lm.rows import Drawn, Row
from trimtab.serve.limits import CLOSING, ApiError, Limits, late
from trimtab.spec import Sampling
from trimtab.steer.generate import plan

if TYPE_CHECKING:
    from trimtab.index.store import Index
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.serve.metrics import Metrics
    from trimtab.serve.recipes import RecipeFolder
    from trimtab.serve.worker import Worker
    from trimtab.steer.recipe import Recipe

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Service:
    """One model with its SAEs (by name), the index of the first one, recipes, and the thread that runs the model."""

    model: Model
    saes: Mapping[str, SAE]
    index: Index | None
    recipes: RecipeFolder
    limits: Limits
    worker: Worker
    metrics: Metrics
    index_lock: threading.Lock = field(default_factory=threading.Lock)  # an index is for one thread at a time

    def check_model(self, name: str) -> None:
        """Refuse (404) a model that is not the one served."""
        if name != self.model.name:
            raise ApiError(
                404,
                f"The model {name[:200]!r} does not exist here; this server has {self.model.name!r}.",
                code="model_not_found",
                param="model",
            )

    async def rows(
        self,
        prompts: Sequence[str],
        recipes: Sequence[Recipe | None],
        samples: int,
        sampling: Sampling,
        seed: int,
        likeliest: int | None = None,
        record: bool = False,
    ) -> list[Row]:
        """The rows of a request, prompt by prompt, each with its recipe. Raises `ApiError` where a limit is passed."""
        limits = self.limits
        if samples * len(prompts) > limits.rows:
            raise ApiError(
                400,
                f"{samples * len(prompts)} texts were asked for; the limit is {limits.rows} a request.",
                code="too_many_texts",
                param="n",
            )
        if sampling.max_new_tokens > limits.max_tokens:
            raise ApiError(
                400,
                f"max_tokens is {sampling.max_new_tokens}; the limit is {limits.max_tokens}.",
                code="too_many_tokens",
                param="max_tokens",
            )
        made = await run_in_threadpool(self._plan, list(prompts), list(recipes), samples, sampling, seed)
        longest = max(len(row.prompt) for row in made)
        most = min(limits.prompt_tokens, self.worker.engine.reserve)
        if longest > most:
            raise ApiError(
                400,
                f"A prompt has {longest} tokens; the limit is {most}.",
                code="context_length_exceeded",
                param="prompt",
            )
        return [replace(row, likeliest=likeliest, record=record) for row in made]

    def _plan(
        self, prompts: list[str], recipes: list[Recipe | None], samples: int, sampling: Sampling, seed: int
    ) -> list[Row]:
        for recipe in {one for one in recipes if one is not None}:
            recipe.compile(self.model)  # refuses what does not fit this model, before it joins the others
        return [row for *_, row in plan(self.model, prompts, recipes, samples, sampling, seed)]

    def start(self, rows: Sequence[Row]) -> Stream:
        """Let rows be written. Raises `ApiError` (503) when the server is full."""
        return Stream(self, rows)

    async def between_steps(self, work: Callable[[], T]) -> T:
        """The result of something short that runs the model."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await asyncio.wrap_future(self.worker.call(work))
        except TimeoutError:
            raise late(self.limits.seconds) from None


class Stream:
    """The tokens of some rows as they are drawn: iterate once, and `close` in any case."""

    def __init__(self, service: Service, rows: Sequence[Row]) -> None:
        self.service, self.left = service, set(range(len(rows)))
        self.queue: asyncio.Queue[tuple[int, Drawn]] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.deadline = self.loop.time() + service.limits.seconds
        self.ticket = service.worker.submit(rows, self._tell, self.loop)

    def _tell(self, number: int, drawn: Drawn) -> None:
        self.queue.put_nowait((number, drawn))

    async def drawn(self) -> AsyncIterator[tuple[int, Drawn]]:
        """(number of the row, token) until all rows have ended. Raises `ApiError` for a row that broke, and (408) when
        it takes too long.
        """
        while self.left:
            try:
                async with asyncio.timeout_at(self.deadline):
                    number, drawn = await self.queue.get()
            except TimeoutError:
                raise late(self.service.limits.seconds) from None
            if number not in self.left:
                continue
            if drawn.finished is not None:
                self.left.discard(number)
            if drawn.finished == "error":
                raise broken(drawn.error)
            yield number, drawn

    def stop(self, number: int) -> None:
        """Write no more of one row."""
        if number in self.left:
            self.left.discard(number)
            self.service.worker.cancel(self.ticket, number)

    def close(self) -> None:
        """Write no more of any row."""
        if self.left:
            self.left.clear()
            self.service.worker.cancel(self.ticket)


def broken(why: str) -> ApiError:
    """The answer for a row that ended with an error."""
    if "finite" in why or "infinite" in why:
        return ApiError(
            400,
            "The steering is too strong for this model: its numbers became NaN or infinite. Lower the strength.",
            code="not_finite",
            param="steering",
        )
    return ApiError(503, why, code="closing" if why == CLOSING else "failed", retry_after=1)
