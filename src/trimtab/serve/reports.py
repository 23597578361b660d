"""/api/jobs/ID/tables and /report: a verification that is done, in words and as the whole page."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from trimtab.report import html, tables
from trimtab.serve.described import documented
from trimtab.serve.explore_responses import VerdictInWords
from trimtab.serve.jobs import Jobs
from trimtab.serve.limits import ApiError

Name = Annotated[str, Path(description="The id of a verification that is done.")]


def router(jobs: Jobs) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Jobs"])
    told = documented("The verdict and what it rests on, in words.", VerdictInWords, (404, 409))
    drawn = documented("One self-contained page.", errors=(400, 404, 409))
    drawn[200]["content"] = {"text/html": {"schema": {"type": "string"}}}

    def evidence(name: str) -> dict[str, Any]:
        job = jobs.get(name)
        if job.kind != "verify" or job.state != "done":
            raise ApiError(409, f"The job is a {job.kind} and {job.state}; only a verification that is done has this.")
        found: dict[str, Any] = job.result
        return found

    @routes.get("/api/jobs/{name}/tables", responses=told)
    def words(name: Name) -> JSONResponse:
        """A verification's verdict, reasons, table of arms and notes, as the report has them."""
        data = evidence(name)
        kind = "good" if data["verdict"] in html.GOOD else "bad" if data["verdict"] in html.BAD else "mixed"
        return JSONResponse(
            {
                "verdict": data["verdict"],
                "kind": kind,
                "reasons": [tables.sentence(one) for one in data["reasons"]],
                "arms": asdict(tables.arms(data)),
                "notes": tables.notes(data),
                "selectivity": tables.selectivity(data),
            }
        )

    @routes.get("/api/jobs/{name}/report", responses=drawn, response_class=Response)
    async def report(name: Name) -> Response:
        """A verification as one self-contained HTML page, with every sample of every arm."""
        data = evidence(name)
        page = await run_in_threadpool(html.page, [data], title=data["question"])
        return Response(page, headers={"Content-Security-Policy": policy(page)}, media_type="text/html")

    return routes


def policy(page: str) -> str:
    """Lets a report's own script and styles work, and nothing else."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts[-1:]]
    allowed = " ".join(f"'sha256-{one}'" for one in hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'"
    )
