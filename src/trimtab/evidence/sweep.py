"""What a sweep did: how strongly the features fire in its texts, and how likely these are, read without steering."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from trimtab.evidence.trace import bos_length, log_likelihoods, trace
from trimtab.report.curves import Curve, Panel, svg
from trimtab.scale.folder import RunFolder
from trimtab.scale.run import LOCAL, On, Say, run_units
from trimtab.scale.unit import Do, Part, Tell, Unit
from trimtab.steer.run_folder import SWEEP, Kind, part_name, parts_of, read_part, table_bytes

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.grid import SweepSpec
    from trimtab.steer.run_folder import Run

_MEASURES = Kind(
    "sweep",
    {"row": "int64", "tokens": "int32", "activation": "floats", "firing": "floats", "log_likelihood": "float64"},
)
_Key = tuple[str | None, int | None, float | None]


@dataclass(frozen=True)
class Measured:
    """A mean over `texts` texts, each of which counts once, and its standard error (None for a single text)."""

    mean: float
    error: float | None


@dataclass(frozen=True)
class CellSummary:
    """One edit of the grid on all prompts and seeds.

    `response`: the feature's activation, mean over generated tokens; `firing`: the share of these with an activation
    above 0; `log_likelihood`: nats per generated token. All are of the unsteered model, which reads the texts.
    `unsteered`: the same feature's response in the unsteered texts.
    """

    op: str
    feature: int
    strength: float | None
    texts: int
    response: Measured
    unsteered: Measured
    firing: Measured
    log_likelihood: Measured


@dataclass(frozen=True)
class Summary:
    """All cells of a sweep in the grid's order, and the log-likelihood per token of the unsteered texts."""

    cells: tuple[CellSummary, ...]
    unsteered_log_likelihood: Measured

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def summarise(
    model: Model,
    sae: SAE,
    run: Run,
    progress: Callable[[int, int], None] | None = None,
    on: On = LOCAL,
    say: Say = lambda _: None,
) -> Summary:
    """Read the texts of a sweep back; write `measures-*.parquet` beside its rows, `summary.json` and `summary.svg`.

    A part of rows is a unit here too, so this goes on where it was interrupted, and can be done `on` Ray. `progress` is
    called with the number of texts read and of all.
    """
    found: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
    read = 0
    units = [Unit(name.removesuffix(".parquet").replace("rows-", "measures-"), name) for name in parts_of(run.folder)]
    reader = _Reader(model, sae, run)
    for done in run_units(reader.open, units, RunFolder(run.folder, SWEEP.name), on, say=say):
        rows = read_part(run.folder, done.unit.work)
        for row, measures in zip(rows, read_part(run.folder, part_name(done.unit.id)), strict=True):
            found[row["op"], row["feature"], row["strength"]].append(measures)
        read += len(rows)
        if progress is not None:
            progress(read, run.rows)
    summary = _summary(run.spec, found)
    run.folder.write_json("summary.json", summary.as_dict())
    run.folder.write("summary.svg", svg(_picture(run.spec, summary), "feature"))
    return summary


@dataclass(frozen=True, eq=False)
class _Reader:
    """How a worker reads texts back."""

    model: Model
    sae: SAE
    run: Run

    @contextmanager
    def open(self) -> Iterator[Do]:
        from trimtab.lm.packed import packed_layers

        with packed_layers(self.model):
            yield self.part

    def part(self, unit: Unit, _tell: Tell) -> Part:
        rows = read_part(self.run.folder, unit.work)
        measures = _measure(self.model, self.sae, self.run.spec.features, rows)
        return Part({part_name(unit.id): table_bytes(_MEASURES, measures)})


def _measure(model: Model, sae: SAE, features: Sequence[int], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per text: mean activation and share of firing tokens of every feature of the grid, and nats per token."""
    ids, starts = [row["token_ids"] for row in rows], [row["generated_from"] for row in rows]
    activations = trace(model, sae, features, ids)
    likely = log_likelihoods(model, ids, starts)
    out = []
    for row, f, said in zip(rows, activations, likely, strict=True):
        generated = f[row["generated_from"] - bos_length(model, row["token_ids"]) :]
        out.append(
            {
                "row": row["row"],
                "tokens": len(generated),
                "activation": generated.mean(0).tolist(),
                "firing": (generated > 0).float().mean(0).tolist(),
                "log_likelihood": float(said.mean()),
            }
        )
    return out


def _summary(spec: SweepSpec, found: dict[_Key, list[dict[str, Any]]]) -> Summary:
    plain = found[None, None, None]
    place = {feature: i for i, feature in enumerate(spec.features)}
    cells = []
    for cell in spec.cells[1:]:
        texts = found.get((cell.op, cell.feature, cell.strength))
        if not texts or cell.op is None or cell.feature is None:
            continue
        i = place[cell.feature]
        cells.append(
            CellSummary(
                op=cell.op,
                feature=cell.feature,
                strength=cell.strength,
                texts=len(texts),
                response=_mean([one["activation"][i] for one in texts]),
                unsteered=_mean([one["activation"][i] for one in plain]),
                firing=_mean([one["firing"][i] for one in texts]),
                log_likelihood=_mean([one["log_likelihood"] for one in texts]),
            )
        )
    return Summary(tuple(cells), _mean([one["log_likelihood"] for one in plain]))


def _mean(values: list[float]) -> Measured:
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Measured(mean, None)
    return Measured(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n))


def _picture(spec: SweepSpec, summary: Summary) -> list[list[Panel]]:
    """One column for each operation: response above, log-likelihood below, one curve for each feature.

    The bars are standard errors over texts. Adding nothing is not steering, so those curves pass through strength 0.
    """
    columns = []
    for op in spec.ops:
        unit = {"scale": "factor", "ablate": "ablated"}.get(op, spec.unit)
        likely = summary.unsteered_log_likelihood.mean
        above = _curves(spec, summary, op, "response")
        below = _curves(spec, summary, op, "log_likelihood")
        columns.append(
            [
                Panel(op, "", "mean activation of the feature", above),
                Panel("", f"strength ({unit})", "log-likelihood, nats per token", below, level=likely),
            ]
        )
    return columns


def _curves(spec: SweepSpec, summary: Summary, op: str, name: str) -> tuple[Curve, ...]:
    curves = []
    for feature in spec.features:
        cells = [cell for cell in summary.cells if cell.op == op and cell.feature == feature]
        points: dict[float, Measured] = {}
        if op == "add" and cells:
            points[0.0] = cells[0].unsteered if name == "response" else summary.unsteered_log_likelihood
        points.update({cell.strength or 0.0: getattr(cell, name) for cell in cells})
        if points:
            x = tuple(sorted(points))
            values = [points[one] for one in x]
            errors = tuple(value.error or 0.0 for value in values)
            curves.append(Curve(str(feature), x, tuple(value.mean for value in values), errors))
    return tuple(curves)
