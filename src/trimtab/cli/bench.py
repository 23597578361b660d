"""`trimtab bench`: the steering benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.cli import options as o
from trimtab.cli.build import open_several
from trimtab.cli.console import complain, out, print_json, say
from trimtab.cli.judging import endpoint, other_model
from trimtab.cli.progress import Bars
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.evidence.benchmark.concepts import Concept
    from trimtab.evidence.benchmark.run import Left
    from trimtab.evidence.benchmark.units import Cell

EXAMPLES = """Examples:

\b
  trimtab bench -o runs/bench --dry-run
  trimtab bench -o runs/bench --concept sea --concept war --method find --method "mean difference" --kl 0.5
  trimtab bench -o runs/mine --pairs my-concepts/ --minutes 12
"""


def _list(wanted: bool) -> None:
    """List the methods and stop, before anything else is asked for."""
    if wanted:
        from trimtab.evidence.benchmark.methods import METHODS

        for name, method in METHODS.items():
            print(f"{name:<32} {method.about}")
        raise typer.Exit


def run(
    folder: o.RunAt,
    concepts: Annotated[
        list[str] | None,
        typer.Option("--concept", metavar="NAME", help="May be given several times.", show_default="all"),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(
            "--pairs",
            metavar="FOLDER",
            help="Your own concepts: a contrast file for each, and phrases.json for what they are in words.",
            show_default="the shipped concepts",
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="May be given several times; see --list.", show_default="all"),
    ] = None,
    budgets: Annotated[
        list[float] | None,
        typer.Option(
            "--kl", metavar="NATS", help="KL budget per token; may be given several times.", show_default="0.5"
        ),
    ] = None,
    prompts: Annotated[
        Literal["test", "dev"], typer.Option("--prompts", help="Choose among methods on dev; report on test.")
    ] = "test",
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="Texts per prompt.")] = 8,
    max_new_tokens: o.NewTokens = 40,
    temperature: o.Temperature = 1.0,
    seed: o.Seed = 0,
    model_name: o.ModelName = o.DEFAULT,
    sae_names: Annotated[
        list[str] | None,
        typer.Option(
            "--sae",
            metavar="NAME",
            help="SAEs of different sites: the first steers, all do in methods of several layers.",
            show_default="the shipped ones",
        ),
    ] = None,
    fluency_model: o.FluencyModel = None,
    judge_url: o.JudgeUrl = None,
    judge_model: o.JudgeModel = "default",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="Stop after about so long; the same command goes on.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what is left to do, and how long it takes at the pace so far.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the methods, and stop.", is_eager=True, callback=_list)
    ] = False,
    where: o.Where = "local",
    workers: o.Workers = 1,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Compare steering methods on concepts, at equal KL budgets, by judges that no method has seen.

    Half of each concept's texts is for the methods, the other half for the judges. The folder is a run folder: it gets
    recipes/, texts/, scores/, what the judges are worth (judges/), and table.json, table.md, table.svg. Concepts,
    methods and budgets may be added to it later. The judge's key is read from OPENAI_API_KEY.
    """
    from trimtab.evidence.benchmark.methods import check_methods
    from trimtab.evidence.benchmark.prompts import DEV, TEST
    from trimtab.evidence.benchmark.units import BenchSpec, cells_of

    spec = BenchSpec.parse(
        {
            "prompts": TEST if prompts == "test" else DEV,
            "samples": samples,
            "sampling": {"max_new_tokens": max_new_tokens, "temperature": temperature},
            "seed": seed,
        }
    )
    chosen = _concepts(pairs, concepts or [])
    cells = cells_of([one.name for one in chosen], check_methods(methods or []), budgets or [0.5])
    from trimtab.evidence.benchmark.run import folder_of, left
    from trimtab.evidence.benchmark.run import run as run_bench
    from trimtab.scale.run import On

    if dry_run:
        _say_left(left(folder_of(folder), cells, spec), len(cells), as_json)
        return
    on = On(where, workers)
    model, saes = open_several(model_name, sae_names or _shipped(model_name), device, dtype, blocks)
    independent = other_model(fluency_model, device)
    with Bars() as bars:
        try:
            rest = run_bench(
                model, saes, folder, spec, chosen, cells, witness=saes[-1], independent=independent,
                endpoint=endpoint(judge_url, judge_model), on=on, seconds=None if minutes is None else minutes * 60,
                progress=bars.show, say=say,
            )  # fmt: skip
        except KeyboardInterrupt:
            bars.finish()
            complain(f"The same command goes on with {folder}.")
            raise
    if rest.cells:
        _say_left(rest, len(cells), as_json)
        say(f"the same command goes on with {folder}")
    begun = {cell.concept for cell in rest.cells}
    complete = [cell for cell in cells if cell.concept not in begun]
    if complete:
        _report(complete, folder, as_json and not rest.cells)


def _concepts(pairs: Path | None, names: list[str]) -> list[Concept]:
    from trimtab.evidence.benchmark.concepts import concepts_in, shipped_concepts

    if pairs is None:
        return shipped_concepts(names)
    found = {one.name: one for one in concepts_in(pairs)}
    for name in names:
        if name not in found:
            raise InputError(f"{pairs} has no concept {name!r}. Valid: {', '.join(found)}.")
    return [found[name] for name in names] if names else list(found.values())


def _shipped(model_name: str) -> list[str] | None:
    from trimtab.sae.shipped import list_saes

    return [one.name for one in list_saes()] if model_name == o.DEFAULT else None


def _say_left(rest: Left, cells: int, as_json: bool) -> None:
    if as_json:
        print_json({"units": cells, "left": len(rest.cells), "tokens": rest.tokens, "seconds": rest.seconds})
        return
    print(f"{cells:,} units; left: {len(rest.cells):,}, with at most {rest.tokens:,} tokens to write")
    if rest.seconds is not None and rest.cells:
        print(f"about {rest.seconds / 60:.0f} minutes at the pace of this folder so far")


def _report(cells: Sequence[Cell], folder: str, as_json: bool) -> None:
    """Write the table of the concepts that are complete, and show it."""
    from trimtab.evidence.benchmark.table import picture, tabulate
    from trimtab.scale.store import open_store

    store = open_store(folder)
    table = tabulate(store, cells)
    store.write_json("table.json", table.model_dump(mode="json"))
    store.write("table.md", table.markdown().encode())
    store.write("table.svg", picture(table))
    if as_json:
        print_json(table.model_dump(mode="json"))
    else:
        out().print(table.markdown(), markup=False)
        say(f"wrote {folder}/table.json, table.md and table.svg")
