"""Sweeps: features x strengths x operations x prompts x seeds, written to a folder that survives being killed.

    spec = SweepSpec(prompts=("Once upon a time",), features=(123, 77), strengths=(0.5, 1, 2), seeds=(0, 1, 2, 3))
    sweep(model, sae, spec, "runs/first")

The folder holds `sweep.json` (what was asked, of which model and SAE) and `rows-00000.parquet`, `rows-00001.parquet`,
... in the order of the grid, one row for each text. A part is always made of the same rows in the same batches and
is renamed into place when it is complete, so a sweep that was killed goes on after its last part and ends with the
very rows that it would have had. The unsteered texts of the same prompts and seeds come first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError, InputError
from trimtab.files import write_json
from trimtab.sae.load import check_fits
from trimtab.steer.generate import check_scopes
from trimtab.steer.grid import Cell, SweepSpec, recipe_of
from trimtab.steer.run_folder import FORMAT, MANIFEST, Run, read_manifest, refuse_another, rows_of, write_part

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress, Row, Written
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

_BATCHES_PER_PART = 2


@dataclass(frozen=True)
class Cost:
    """What is left of a sweep: texts, tokens at most, and seconds at the `rate` (tokens/s) that was measured."""

    rows: int
    tokens: int
    rate: float

    @property
    def seconds(self) -> float:
        """Time until the end if every text runs to its full length."""
        return self.tokens / self.rate if self.tokens else 0.0


def sweep(
    model: Model,
    sae: SAE,
    spec: SweepSpec,
    folder: str | PathLike[str],
    *,
    batch_size: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Write the texts of the grid that `folder` does not have yet; a complete folder is left as it is.

    `batch_size` None chooses from the free memory, or takes that of the folder: rows are the same to the last bit only
    in the same batches. Raises `MismatchError` when the folder holds another sweep, saying what differs, and what
    `generate` raises.
    """
    from trimtab.lm.decode import Progress

    plan = _plan(model, sae, spec, Path(folder), batch_size)
    write_json(plan.folder / MANIFEST, plan.manifest)
    left = plan.missing()
    done, tokens = spec.n_rows - sum(len(plan.span(part)) for part in left), 0
    began = time.monotonic()
    for part in left:
        after = spec.n_rows - done - len(plan.span(part))

        def show(now: Progress, done: int = done, tokens: int = tokens, after: int = after) -> None:
            if progress is not None:
                rest = now.left + after * spec.sampling.max_new_tokens
                elapsed = time.monotonic() - began
                progress(Progress(done + now.done, spec.n_rows, tokens + now.tokens, rest, elapsed))

        tokens += plan.write(part, show)
        done += len(plan.span(part))
    return Run(plan.folder, spec, done, spec.n_rows)


def estimate(
    model: Model, sae: SAE, spec: SweepSpec, folder: str | PathLike[str], *, batch_size: int | None = None
) -> Cost:
    """What `sweep` would still have to do, at the rate of a few steps of its first batch. Writes nothing."""
    plan = _plan(model, sae, spec, Path(folder), batch_size)
    left = plan.missing()
    rows = sum(len(plan.span(part)) for part in left)
    if not left:
        return Cost(0, 0, 0.0)
    return Cost(rows, rows * spec.sampling.max_new_tokens, plan.rate(left[0]))


@dataclass(frozen=True, eq=False)
class _Plan:
    model: Model
    sae: SAE
    spec: SweepSpec
    folder: Path
    batch_size: int
    prompts: dict[str, tuple[int, ...]]
    manifest: dict[str, Any]

    def path(self, part: int) -> Path:
        return self.folder / f"rows-{part:05d}.parquet"

    def span(self, part: int) -> range:
        size = self.batch_size * _BATCHES_PER_PART
        return range(part * size, min((part + 1) * size, self.spec.n_rows))

    def missing(self) -> list[int]:
        """Parts still to write. A part that is there must be whole."""
        parts = range(-(-self.spec.n_rows // (self.batch_size * _BATCHES_PER_PART)))
        there = {part for part in parts if self.path(part).exists()}
        for part in there:
            if rows_of(self.path(part)) != len(self.span(part)):
                raise FileError(f"{self.path(part)} is damaged: remove it, and it will be written again.")
        return [part for part in parts if part not in there]

    def places(self, part: int) -> list[tuple[int, Cell, str, int]]:
        """(row number, cell, prompt, seed) of each row of a part."""
        grid = (
            (cell, prompt, seed) for cell in self.spec.cells for prompt in self.spec.prompts for seed in self.spec.seeds
        )
        span = self.span(part)
        return [(row, *place) for row, place in zip(span, islice(grid, span.start, span.stop), strict=True)]

    def rows(self, places: list[tuple[int, Cell, str, int]]) -> list[Row]:
        from trimtab.lm.decode import Row
        from trimtab.lm.sampling import stream_key

        recipes = {cell: cell.recipe(self.sae, self.spec) for cell in dict.fromkeys(cell for _, cell, *_ in places)}
        on_prompt = self.spec.scope.prompt
        return [
            Row(self.prompts[prompt], stream_key(seed, prompt, 0), self.spec.sampling, recipes[cell], on_prompt)
            for _, cell, prompt, seed in places
        ]

    def write(self, part: int, progress: Callable[[Progress], None]) -> int:
        """Write one part; the number of tokens that it took."""
        from trimtab.lm.decode import decode

        places = self.places(part)
        rows = self.rows(places)
        written = decode(self.model, rows, batch_size=self.batch_size, stops=self.model.eos_ids, progress=progress)
        records = [self.record(*place, row, one) for place, row, one in zip(places, rows, written, strict=True)]
        write_part(self.path(part), records)
        return sum(len(one.tokens) for one in written)

    def record(self, number: int, cell: Cell, prompt: str, seed: int, row: Row, one: Written) -> dict[str, Any]:
        return {
            "row": number,
            "op": cell.op,
            "feature": cell.feature,
            "strength": cell.strength,
            "prompt": prompt,
            "seed": seed,
            "text": self.model.decode(one.tokens),
            "token_ids": [*row.prompt, *one.tokens],
            "generated_from": len(row.prompt),
            "finished": one.finished,
        }

    def rate(self, part: int) -> float:
        """Tokens per second of a few steps of a part's first batch, the prompts' pass spread over full texts."""
        from trimtab.lm.decode import decode

        steps = min(6, self.spec.sampling.max_new_tokens)
        short = self.spec.sampling.model_copy(update={"max_new_tokens": steps})
        rows = [replace(row, sampling=short) for row in self.rows(self.places(part)[: self.batch_size])]
        times: list[float] = []
        decode(self.model, rows, batch_size=self.batch_size, progress=lambda now: times.append(now.seconds))
        more = [after - before for before, after in pairwise(times)]
        step = statistics.median(more) if more else 0.0
        tokens = self.spec.sampling.max_new_tokens
        return len(rows) * tokens / (times[0] + step * (tokens - 1))


def _plan(model: Model, sae: SAE, spec: SweepSpec, folder: Path, batch_size: int | None) -> _Plan:
    """Everything checked that can be checked before the first text is written."""
    from trimtab.lm.memory import rows_that_fit

    check_fits(sae, model)
    new = spec.sampling.max_new_tokens
    prompts = {prompt: tuple(model.encode_prompt(prompt, new)) for prompt in spec.prompts}
    for op in spec.ops:
        recipe = recipe_of(op, sae, dict.fromkeys(spec.features, spec.strengths[0]), spec)
        for ids in prompts.values():
            check_scopes(recipe, len(ids), new)
    found = read_manifest(folder)
    if batch_size is None:
        longest = max(map(len, prompts.values())) + new
        batch_size = int(found["batch_size"]) if found else min(rows_that_fit(model, longest), spec.n_rows)
    elif batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}.")
    manifest = {
        "format": FORMAT,
        "spec": spec.model_dump(mode="json"),
        "model": {"name": model.name, "fingerprint": model.fingerprint, "dtype": str(model.dtype).split(".")[-1]},
        "sae": {"name": sae.name, "fingerprint": sae.fingerprint, "site": str(sae.site)},
        "device": model.device.type,
        "batch_size": batch_size,
        "rows": spec.n_rows,
    }
    if found is not None:
        refuse_another(folder, found, manifest)
    return _Plan(model, sae, spec, folder, batch_size, prompts, manifest)
