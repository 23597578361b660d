"""The texts of one request under way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trimtab.serve.text import Text

if TYPE_CHECKING:
    from trimtab.lm.rows import Row
    from trimtab.serve.service import Service


class Writing:
    """Rows that are being written, what may be shown of each, and what was edited. `close` it in any case.

    Raises `ApiError` (503) when the server is full.
    """

    def __init__(self, service: Service, rows: Sequence[Row], stops: Sequence[str] = ()) -> None:
        self.metrics = service.metrics
        self.texts = [Text(service.model, stops) for _ in rows]
        self.touched: list[Any] = [None] * len(rows)
        self.stream = service.start(rows)

    async def steps(self) -> AsyncIterator[tuple[int, str]]:
        """(number, text that may now be shown) for all rows, until all have ended. Raises as `Stream.drawn`."""
        async for number, drawn in self.stream.drawn():
            text = self.texts[number]
            new = text.push(drawn)
            self.metrics.token()
            if drawn.touched is not None:
                self.touched[number] = {site: asdict(one) for site, one in drawn.touched.items()}
            if text.finished is not None:
                self.stream.stop(number)
            yield number, new

    def close(self) -> None:
        """Write no more."""
        self.stream.close()
