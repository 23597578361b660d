"""/api/contrast, /api/verify and /api/dose: long work, one at a time, which gives way to texts that are asked for."""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path
from pydantic import Field
from starlette.responses import JSONResponse

from trimtab.errors import TrimtabError
from trimtab.sae.sae import SAE
from trimtab.serve import responses
from trimtab.serve.body import Body
from trimtab.serve.described import POSTED, documented, example
from trimtab.serve.limits import ApiError
from trimtab.serve.service import Service
from trimtab.serve.steering import RecipeId, Wanted, recipe_of

_KEPT = 20
Progress = Callable[[str, int, int], None]
Line = Annotated[str, Field(min_length=1, max_length=2000)]


class ContrastRequest(Body):
    """POST /api/contrast."""

    positive: Annotated[tuple[Line, ...], Field(max_length=500, description="Texts that show the concept, 8 or more.")]
    negative: Annotated[tuple[Line, ...], Field(max_length=500, description="Texts that do not.")]
    paired: Annotated[bool | None, Field(description="Whether text i of both sides belong together.")] = None
    limit: Annotated[int, Field(ge=1, le=64, description="Features to keep.")] = 16
    method: Annotated[
        Literal["mean_difference", "equal", "ridge", "logistic"] | None,
        Field(description="Make the recipe of features, weighed this way; else of what does most, with or without."),
    ] = None
    save_as: Annotated[RecipeId | None, Field(description="Save the recipe that is found under this id.")] = None

    model_config = example(
        {
            "positive": ["The waves broke on the rocks.", "..."],
            "negative": ["The train was late again.", "..."],
            "save_as": "sea",
        }
    )


class VerifyRequest(Body):
    """POST /api/verify."""

    steering: Wanted
    prompts: Annotated[tuple[Line, ...], Field(min_length=1, max_length=16, description="Prompts to continue.")]
    samples: Annotated[int, Field(ge=2, le=16, description="Texts for each prompt, in every arm.")] = 4
    max_tokens: Annotated[int, Field(ge=2, le=200, description="Length of the texts.")] = 40
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Same seed, same result.")] = 0

    model_config = example({"steering": "sea", "prompts": ["The best thing about the weekend is"]})


class DoseRequest(Body):
    """POST /api/dose."""

    steering: Wanted
    texts: Annotated[int, Field(ge=0, le=32, description="Texts written at each strength.")] = 8
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Same seed, same result.")] = 0

    model_config = example({"steering": "sea"})


class _Cancelled(Exception):
    pass


@dataclass
class Job:
    """Long work and how far it is."""

    id: str
    kind: str
    state: Literal["running", "done", "failed", "cancelled"] = "running"
    stage: str = "waiting"
    done: int = 0
    total: int = 0
    result: Any = None
    error: str | None = None
    stop: bool = False

    def describe(self) -> dict[str, Any]:
        """The answer to whoever asks."""
        return {name: value for name, value in vars(self).items() if name != "stop"}


class Jobs:
    """The last jobs; at most one is running."""

    def __init__(self, service: Service) -> None:
        self.service, self.lock = service, threading.Lock()
        self.jobs: dict[str, Job] = {}

    def start(self, kind: str, work: Callable[[Progress], Any]) -> JSONResponse:
        """Let `work` be done. Raises `ApiError` (409) when another is running."""
        with self.lock:
            running = next((job for job in self.jobs.values() if job.state == "running"), None)
            if running is not None:
                raise ApiError(
                    409, f"Another job ({running.kind}, {running.id}) is running; wait or delete it.", code="busy"
                )
            job = Job(secrets.token_hex(8), kind)
            self.jobs[job.id] = job
            while len(self.jobs) > _KEPT:
                del self.jobs[next(iter(self.jobs))]
        try:
            self.service.worker.call(lambda: self._do(job, work))
        except ApiError:
            del self.jobs[job.id]
            raise
        return JSONResponse(job.describe(), 202)

    def get(self, name: str) -> Job:
        """A job. Raises `ApiError` (404)."""
        job = self.jobs.get(name)
        if job is None:
            raise ApiError(404, f"There is no job {name[:80]!r}.", code="job_not_found")
        return job

    def _do(self, job: Job, work: Callable[[Progress], Any]) -> None:
        def progress(stage: str, done: int, total: int) -> None:
            job.stage, job.done, job.total = stage, done, total
            self.service.worker.give_way()
            if job.stop or self.service.worker.stopping:
                raise _Cancelled

        try:
            progress("starting", 0, 1)
            job.result = _plain(work(progress))
            job.state = "done"
        except _Cancelled:
            job.state = "cancelled"
        except ApiError as error:
            job.error, job.state = error.message, "failed"
        except TrimtabError as error:
            job.error, job.state = str(error), "failed"
        except BaseException:
            job.error, job.state = "The server made a mistake.", "failed"
            raise


def router(service: Service, jobs: Jobs) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Jobs"])
    started = documented("It has begun: poll /api/jobs/ID.", responses.Job, (404, 409, 503, *POSTED), code=202)
    asked = documented("The job, with its result once it is done.", responses.Job, (404,))

    def sae() -> SAE:
        one = next(iter(service.saes.values()), None)
        if one is None:
            raise ApiError(404, "This server has no SAE.", code="no_sae")
        return one

    @routes.post("/api/contrast", responses=started, status_code=202)
    def contrast(body: ContrastRequest) -> JSONResponse:
        """Find the features that tell two lists of texts apart, and a recipe: see docs/finding.md."""
        from trimtab.find.find import Settings, find
        from trimtab.find.pairs import ContrastSet
        from trimtab.find.show import to_json

        texts = ContrastSet.of(body.positive, body.negative, paired=body.paired)
        texts.split()
        mine = sae()

        def work(progress: Progress) -> Any:
            given = {"limit": body.limit} if body.method is None else {"limit": body.limit, "method": body.method}
            found = find(service.model, mine, texts, Settings.parse(given), progress=progress)
            if body.save_as is not None and found.recipe is not None:
                service.recipes.save(body.save_as, found.recipe)
            edits = [] if found.recipe is None else [one.spec.model_dump(mode="json") for one in found.recipe.edits]
            return {**to_json(found), "edits": edits}

        return jobs.start("contrast", work)

    @routes.post("/api/verify", responses=started, status_code=202)
    def verify_(body: VerifyRequest) -> JSONResponse:
        """Does the steering do what it should, more than controls do? See docs/evidence.md."""
        from trimtab.evidence.verify import verify

        recipe, mine = recipe_of(body.steering, service.saes, service.recipes), sae()
        recipe.compile(service.model)

        def work(progress: Progress) -> Any:
            return verify(
                service.model, mine, recipe, body.prompts, samples=body.samples, max_new_tokens=body.max_tokens,
                seed=body.seed, progress=progress,
            ).model_dump(mode="json")  # fmt: skip

        return jobs.start("verify", work)

    @routes.post("/api/dose", responses=started, status_code=202)
    def dose(body: DoseRequest) -> JSONResponse:
        """What the steering costs and does at several strengths: see docs/dose.md."""
        from trimtab.steer.dose import measure_dose

        recipe = recipe_of(body.steering, service.saes, service.recipes)
        recipe.compile(service.model)
        mine = next((one for one in service.saes.values() if recipe.reads(one)), None)

        def work(progress: Progress) -> Any:
            return measure_dose(
                service.model, recipe, sae=mine, texts=body.texts, seed=body.seed, progress=progress
            ).as_dict()  # fmt: skip

        return jobs.start("dose", work)

    @routes.get("/api/jobs", responses=documented("The last jobs.", responses.JobList))
    def listed() -> JSONResponse:
        """The last jobs, the newest first, without their results."""
        found = [{**one.describe(), "result": None} for one in reversed(list(jobs.jobs.values()))]
        return JSONResponse({"jobs": found})

    @routes.get("/api/jobs/{name}", responses=asked)
    def read(name: Annotated[str, Path(description="The job's id.")]) -> JSONResponse:
        """How far a job is, and what came of it."""
        return JSONResponse(jobs.get(name).describe())

    @routes.delete("/api/jobs/{name}", responses=asked)
    def stop(name: Annotated[str, Path(description="The job's id.")]) -> JSONResponse:
        """Stop a job at its next report of progress."""
        job = jobs.get(name)
        job.stop = True
        return JSONResponse(job.describe())

    return routes


def _plain(value: Any) -> Any:
    """`value` with None for numbers that are not finite, which JSON has not."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
