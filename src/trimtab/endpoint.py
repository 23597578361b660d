"""A language model behind any OpenAI-compatible endpoint: one question, one answer."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

from trimtab.errors import FileError, InputError


@dataclass(frozen=True)
class Endpoint:
    """`url` ends before /chat/completions, such as http://localhost:8080/v1. Failed requests are tried three times.

    Raises `InputError` for an address that is not http or https.
    """

    url: str
    model: str
    key: str | None = None
    timeout: float = 60.0
    pause: float = 1.0  # seconds before the second try, doubled before the third

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InputError(
                f"The endpoint must be an http or https address such as http://localhost:8000/v1, not {self.url!r}."
            )

    def ask(self, prompt: str, *, most: int | None = 200, temperature: float = 0.0, seed: int | None = None) -> str:
        """The answer to one user message, of at most `most` tokens. Raises `FileError` when none can be had."""
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        body |= {"temperature": temperature}
        body |= {"max_tokens": most} if most is not None else {}
        body |= {"seed": seed} if seed is not None else {}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        for attempt in range(3):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return _content(json.load(response), self.url)
            except urllib.error.HTTPError as error:
                detail = error.read(300).decode(errors="replace").strip()
                problem = f"HTTP {error.code} {error.reason}" + (f": {detail}" if detail else "")
                if error.code < 500 and error.code != 429:
                    break
            except (OSError, json.JSONDecodeError) as error:
                problem = f"it cannot be reached: {getattr(error, 'reason', error)}"
            if attempt < 2:
                time.sleep(self.pause * 2**attempt)
        raise FileError(f"{self.url} gave no answer: {problem}.")


def _content(answer: Any, url: str) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"])
    except (KeyError, IndexError, TypeError):
        raise FileError(f"{url} does not answer like /chat/completions: {str(answer)[:80]}.") from None
