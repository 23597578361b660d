"""What one server takes, and the answers that say no."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import HTTPException
from pydantic import Field

from trimtab.spec import Spec

CLOSING = "The server is shutting down; this text is not finished."
Positive = Annotated[int, Field(ge=1)]


class Limits(Spec):
    """How much a server takes.

    prompt_tokens, max_tokens: of one text. rows: texts of one request. slots: texts that are written at a time. queue:
    texts that may wait. body_bytes, seconds: of one request. recipes: files in the folder.
    """

    prompt_tokens: Positive = 1024
    max_tokens: Positive = 512
    rows: Positive = 16
    slots: Positive = 32
    queue: Positive = 128
    body_bytes: Positive = 1 << 20
    seconds: Annotated[float, Field(gt=0)] = 120.0
    recipes: Positive = 1000


class ApiError(HTTPException):
    """An answer in OpenAI's error shape. `code` is for programs; `param` names the field."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after: int = 0
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.code, self.param, self.retry_after = status, message, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = {401: "authentication_error", 403: "permission_error"}.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def more_headers(self) -> dict[str, str]:
        """When to come again; that a timeout is not worth trying again, which clients otherwise do."""
        if self.retry_after:
            return {"Retry-After": str(self.retry_after)}
        return {"x-should-retry": "false"} if self.status == 408 else {}


def full() -> ApiError:
    """The answer when no more texts may wait."""
    return ApiError(503, "The server is full: too many texts are waiting. Try again later.", code="full", retry_after=2)


def closing() -> ApiError:
    """The answer when the server has been told to stop."""
    return ApiError(503, "The server is shutting down.", code="closing", retry_after=10)


def late(seconds: float) -> ApiError:
    """The answer when the time is up."""
    return ApiError(408, f"The request took longer than {seconds:g} seconds, this server's limit.", code="timeout")
