"""Sweeps: features x strengths x operations x prompts x seeds, written to a folder that survives being killed.

    spec = SweepSpec(prompts=("Once upon a time",), features=(123, 77), strengths=(0.5, 1, 2), seeds=(0, 1, 2, 3))
    sweep(model, sae, spec, "runs/first")

The folder is a run folder (`scale/folder.py`) with `rows-00000.parquet`, `rows-00001.parquet`, ... in the order of the
grid, one row for each text. The unsteered texts of the same prompts and seeds come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.sae.load import check_fits
from trimtab.scale.run import LOCAL, On, Say
from trimtab.scale.store import Store
from trimtab.steer.generate import check_scopes
from trimtab.steer.grid import Cell, SweepSpec, recipe_of
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.parts import Cost, Job, about_model, choose_batch
from trimtab.steer.run_folder import SWEEP, Run
from trimtab.steer.strength import crossing, rough_costs, scaled

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress, Row, Written
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

SPAN = (0.1, 1.6)
"""Costs in nats per token between which the strengths of a sweep lie when none are given."""


def sweep(
    model: Model,
    sae: SAE,
    spec: SweepSpec,
    folder: str | PathLike[str] | Store,
    *,
    batch_size: int | None = None,
    on: On = LOCAL,
    progress: Callable[[Progress], None] | None = None,
    say: Say = lambda _: None,
) -> Run:
    """Write the texts of the grid that `folder` does not have yet; a complete folder is left as it is.

    `folder` is a path or an address such as s3://bucket/folder. `on` says where the texts are written, here or by
    several workers; they are the same. `say` is told what a person should know, such as that a damaged part is written
    again. `batch_size` None chooses from the free memory, or takes that of the folder: rows are the same to the last
    bit only in the same batches. Raises `MismatchError` when the folder holds another sweep, saying what differs, and
    what `generate` raises.
    """
    there = SWEEP.folder(folder)
    _job(model, sae, spec, there.manifest(), batch_size).write(there, progress, on, say)
    return Run(there.store, spec, spec.n_rows, spec.n_rows)


def with_strengths(model: Model, sae: SAE, spec: SweepSpec, count: int = 5) -> SweepSpec:
    """The grid with strengths by measurement: evenly spaced in proportion, from the least at which any of its features
    costs the first of `SPAN` to the most at which any costs the second, rounded to two digits.

    Raises `InputError` for a grid whose operations do not have strengths of one kind, and where nothing costs anything.
    """
    ops = [op for op in spec.ops if op != "ablate"]
    if not ops:
        return spec.model_copy(update={"strengths": (1.0,)})
    if len(ops) > 1 and "scale" in ops:
        raise InputError("The factors of scale and the strengths of other operations differ: give the strengths.")
    ends = []
    for op in ops:
        for feature in spec.features:
            recipe = recipe_of(op, sae, {feature: 2.0 if op == "scale" else 1.0}, spec)
            seen = rough_costs(model, recipe, *SPAN, NEUTRAL)
            ends += [scaled(recipe, f).edits[0].spec.strengths[0] for kl in SPAN if (f := crossing(seen, kl))]
    if not ends:
        raise InputError(f"None of these edits costs {SPAN[0]:g} nats per token at any strength: give the strengths.")
    low, high = min(ends), max(ends)
    grid = [low * (high / low) ** (i / (count - 1)) for i in range(count)]
    return spec.model_copy(update={"strengths": tuple(dict.fromkeys(float(f"{one:.2g}") for one in grid))})


def estimate(
    model: Model, sae: SAE, spec: SweepSpec, folder: str | PathLike[str] | Store, *, batch_size: int | None = None
) -> Cost:
    """What `sweep` would still have to do, at the rate of a few steps of its first batch. Writes nothing."""
    there = SWEEP.folder(folder)
    return _job(model, sae, spec, there.manifest(), batch_size).cost(there)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The rows of the grid: how each is drawn and what is stored of it."""

    model: Model
    sae: SAE
    spec: SweepSpec
    prompts: dict[str, tuple[int, ...]]

    def places(self, span: range) -> Iterator[tuple[Cell, str, int]]:
        """(cell, prompt, seed) of each row of a span."""
        grid = (
            (cell, prompt, seed) for cell in self.spec.cells for prompt in self.spec.prompts for seed in self.spec.seeds
        )
        return islice(grid, span.start, span.stop)

    def rows(self, span: range) -> list[Row]:
        from trimtab.lm.decode import Row
        from trimtab.lm.sampling import stream_key

        places = list(self.places(span))
        recipes = {cell: cell.recipe(self.sae, self.spec) for cell in dict.fromkeys(cell for cell, *_ in places)}
        on_prompt = self.spec.scope.prompt
        return [
            Row(self.prompts[prompt], stream_key(seed, prompt, 0), self.spec.sampling, recipes[cell], on_prompt)
            for cell, prompt, seed in places
        ]

    def records(self, span: range, rows: list[Row], written: list[Written]) -> list[dict[str, Any]]:
        return [
            {
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
            for number, (cell, prompt, seed), row, one in zip(span, self.places(span), rows, written, strict=True)
        ]


def _job(model: Model, sae: SAE, spec: SweepSpec, found: dict[str, Any] | None, batch_size: int | None) -> Job:
    """Everything checked that can be checked before the first text is written."""
    check_fits(sae, model)
    new = spec.sampling.max_new_tokens
    prompts = {prompt: tuple(model.encode_prompt(prompt, new)) for prompt in spec.prompts}
    for op in spec.ops:
        recipe = recipe_of(op, sae, dict.fromkeys(spec.features, spec.strengths[0]), spec)
        for ids in prompts.values():
            check_scopes(recipe, len(ids), new)
    batch_size = choose_batch(model, max(map(len, prompts.values())) + new, spec.n_rows, batch_size, found)
    manifest = {
        "spec": spec.model_dump(mode="json"),
        "model": about_model(model),
        "sae": {"name": sae.name, "fingerprint": sae.fingerprint, "site": str(sae.site)},
        "device": model.device.type,
        "batch_size": batch_size,
        "rows": spec.n_rows,
    }
    grid = _Grid(model, sae, spec, prompts)
    return Job(model, SWEEP, manifest, spec.n_rows, new, batch_size, grid.rows, grid.records)
