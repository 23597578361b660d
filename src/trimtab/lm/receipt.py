"""The receipt: which positions were really edited in each forward pass, and by how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab.spec import Site


@dataclass(frozen=True)
class Step:
    """One forward pass at one site.

    `positions`: per row, the absolute positions that were edited. `ratio`: per row, the mean over these of
    ||change|| / ||residual||, or None where nothing was edited.
    """

    site: Site
    positions: list[list[int]]
    ratio: list[float | None]


class Receipt:
    """What an `edit` context did. Filled while it runs; the lists are made when they are asked for."""

    def __init__(self, record: bool = True) -> None:
        self._record = record
        self._pending: list[tuple[Site, Tensor, Tensor, Tensor]] = []
        self._steps: list[Step] = []

    def add(self, site: Site, absolute: Tensor, touched: Tensor, change: Tensor, residual: Tensor) -> None:
        """Note one forward pass: `absolute` and `touched` are [rows, seq], `change` and `residual` [rows, seq, d]."""
        if self._record:
            share = change.detach().norm(dim=-1) / residual.detach().norm(dim=-1).clamp(min=1e-30)
            ratio = torch.where(touched, share, 0.0).sum(1) / touched.sum(1)
            self._pending.append((site, absolute, touched, ratio))

    @property
    def steps(self) -> list[Step]:
        """One `Step` per forward pass and site, in the order in which they happened."""
        for site, absolute, touched, ratio in self._pending:
            places = [
                [p for p, hit in zip(row, hits, strict=True) if hit]
                for row, hits in zip(absolute.tolist(), touched.tolist(), strict=True)
            ]
            shares = [value if row else None for row, value in zip(places, ratio.tolist(), strict=True)]
            self._steps.append(Step(site, places, shares))
        self._pending.clear()
        return self._steps

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "steps": [{"site": str(step.site), "positions": step.positions, "ratio": step.ratio} for step in self.steps]
        }

    def __str__(self) -> str:
        steps = self.steps
        if not steps:
            return "nothing recorded"
        sites = ", ".join(str(site) for site in sorted({step.site for step in steps}, key=lambda site: site.layer))
        edited = sum(len(row) for step in steps for row in step.positions)
        weighted = sum(
            ratio * len(row)
            for step in steps
            for row, ratio in zip(step.positions, step.ratio, strict=True)
            if ratio is not None
        )
        size = f", mean size {weighted / edited:.3g} of the residual" if edited else ""
        return f"{edited} positions edited in {len(steps)} steps at {sites}{size}"
