"""`trimtab sweep`: a grid of edits, prompts and seeds, written to a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli import options as o
from trimtab.cli.build import open_pair
from trimtab.cli.console import complain, out, print_json, say, say_cost
from trimtab.cli.progress import Bars
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.evidence.sweep import Summary
    from trimtab.lm.decode import Progress
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.grid import SweepSpec

EXAMPLES = """Examples:

\b
  trimtab sweep "Once upon a time" "My day" -f 123 -f 77 --seeds 4 --out runs/first
  trimtab sweep "Once upon a time" -f 123 --op add --op clamp --strengths -1,1,2 --out runs/ops --dry-run
"""

Index = Annotated[
    list[int] | None, typer.Option("--feature", "-f", metavar="INDEX", help="A feature; may be given several times.")
]
Strengths = Annotated[
    str | None,
    typer.Option(
        "--strengths",
        metavar="LIST",
        help="Such as 0.5,1,2 or -1,1.",
        show_default="five, from where the features cost 0.1 nats per token to where they cost 1.6",
    ),
]
Ops = Annotated[
    list[str] | None,
    typer.Option(
        "--op",
        metavar="OPERATION",
        help="What is done to a feature: add, clamp, scale, ablate, min or max; may be given several times.",
        show_default="add",
    ),
]
GridUnit = Annotated[o.Unit, typer.Option("--unit", help="Unit of the strengths, as for `trimtab steer`.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Texts per prompt and edit, with seeds 0, 1, ...")]
Summarise = Annotated[bool, typer.Option("--summary/--no-summary", help="Read the texts back and draw the picture.")]


def run(
    prompts: o.Prompts,
    folder: o.RunAt,
    features: Index = None,
    strengths: Strengths = None,
    ops: Ops = None,
    unit: GridUnit = "max_act",
    seeds: Seeds = 1,
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    max_new_tokens: o.NewTokens = 60,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    batch_size: o.BatchSize = None,
    dry_run: o.DryRun = False,
    summary: Summarise = True,
    where: o.Where = "local",
    workers: o.Workers = 1,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Steer with every feature, operation and strength of a grid, on every prompt and seed.

    The folder gets the texts (rows-*.parquet), what the unsteered model reads in them (measures-*.parquet,
    summary.json) and a picture of it (summary.svg). The same command goes on with a sweep that was interrupted, and
    ends with the same rows. Unsteered texts of the same seeds are always among them.
    """
    from trimtab.steer.grid import SweepSpec

    if not features:
        raise InputError("Nothing to steer with: give at least one --feature.")
    spec = SweepSpec.parse(
        {
            "prompts": prompts,
            "features": features,
            "strengths": _numbers(strengths) if strengths is not None else [1.0],
            "ops": ops or ["add"],
            "unit": unit,
            "seeds": list(range(seeds)),
            "sampling": {
                "max_new_tokens": max_new_tokens,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
            },
        }
    )
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert sae is not None
    if strengths is None:
        spec = _chosen(spec, model, sae, folder)
    from trimtab.evidence.sweep import summarise
    from trimtab.scale.run import On
    from trimtab.steer.sweep import estimate, sweep

    if dry_run:
        say_cost(spec.n_rows, estimate(model, sae, spec, folder, batch_size=batch_size), as_json)
        return
    on = On(where, workers)
    with Bars() as bars:

        def show(now: Progress) -> None:
            note = f"{now.tokens_per_second:.0f} tokens/s"
            bars.show("writing", now.done, now.rows, note)

        try:
            done = sweep(model, sae, spec, folder, batch_size=batch_size, on=on, progress=show, say=say)
            found = None
            if summary:
                found = summarise(model, sae, done, lambda n, of: bars.show("reading", n, of), on, say)
        except KeyboardInterrupt:
            bars.finish()
            complain(f"The same command goes on with {folder}.")
            raise
    say(f"wrote {done.rows} texts to {folder}")
    if as_json:
        print_json({"folder": folder, "rows": done.rows, "summary": found.as_dict() if found else None})
    elif found is not None:
        _print(found)
        say(f"wrote {done.folder / 'summary.svg'}")


def _chosen(spec: SweepSpec, model: Model, sae: SAE, folder: str) -> SweepSpec:
    """The grid with strengths by measurement; those of the folder, where it has been begun."""
    from trimtab.steer.run_folder import SWEEP, open_run
    from trimtab.steer.sweep import with_strengths

    if SWEEP.folder(folder).manifest() is not None:
        return spec.model_copy(update={"strengths": open_run(folder).spec.strengths})
    say("choosing the strengths")
    chosen = with_strengths(model, sae, spec)
    say("strengths " + ", ".join(f"{strength:g}" for strength in chosen.strengths))
    return chosen


def _numbers(given: str) -> list[float]:
    try:
        return [float(one) for one in given.split(",")]
    except ValueError:
        raise InputError(f"--strengths is a list of numbers, such as 0.5,1,2, not {given!r}.") from None


def _print(summary: Summary) -> None:
    from rich.table import Table

    table = Table("op", "feature", "strength", "texts", "response", "unsteered", "firing", "nats/token", box=None)
    for cell in summary.cells:
        values: list[Any] = [cell.op, cell.feature, "" if cell.strength is None else f"{cell.strength:g}", cell.texts]
        values += [f"{cell.response.mean:.2f}", f"{cell.unsteered.mean:.2f}", f"{cell.firing.mean:.0%}"]
        table.add_row(*map(str, values), f"{cell.log_likelihood.mean:.2f}")
    table.add_row("", "", "", "", "", "", "", f"{summary.unsteered_log_likelihood.mean:.2f}", end_section=True)
    console = out()
    console.print(table)
    console.print("The last line is the unsteered texts; response is the feature's mean activation.", style="dim")
