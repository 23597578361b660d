"""`trimtab corpus`: texts drawn from a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.console import complain, print_json, say, say_cost
from trimtab.cli.progress import Bars

if TYPE_CHECKING:
    from trimtab.lm.decode import Progress

EXAMPLES = """Examples:

\b
  trimtab corpus sample --texts 1000 --tokens-each 96 --out runs/corpus
  trimtab corpus sample --texts 1000 --prompt "The weather" --prompt "In the kitchen" --out runs/corpus --dry-run --json
  trimtab index build runs/corpus/rows-*.parquet --out runs/index
"""

Openers = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt", metavar="TEXT", help="An opener; may be given several times.", show_default="none, BOS alone"
    ),
]
OpenersFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="A file of openers, one a line; an empty line is BOS alone."),
]

group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Draw texts from a model, to index or train on.")


@group.command()
def sample(
    texts: Annotated[int, typer.Option("--texts", min=1, help="How many texts.")],
    folder: o.RunAt,
    tokens_each: Annotated[int, typer.Option("--tokens-each", min=1, help="Tokens written of each, at most.")] = 96,
    prompts: Openers = None,
    prompts_file: OpenersFile = None,
    model_name: o.ModelName = o.DEFAULT,
    temperature: o.Temperature = 1.0,
    top_k: o.TopK = None,
    top_p: o.TopP = None,
    min_p: o.MinP = None,
    seed: o.Seed = 0,
    batch_size: o.BatchSize = None,
    dry_run: o.DryRun = False,
    where: o.Where = "local",
    workers: o.Workers = 1,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Write texts of the model's own: every opener in turn, drawn with seeds, as Parquet parts with a manifest.

    The same command goes on with a run that was interrupted, and ends with the same texts.
    """
    from trimtab.scale.run import On
    from trimtab.steer.corpus import CorpusSpec, draw, estimate

    openers = [*(prompts or ()), *(_lines(prompts_file) if prompts_file else ())] or [""]
    spec = CorpusSpec.parse(
        {
            "prompts": openers,
            "texts": texts,
            "seed": seed,
            "sampling": {
                "max_new_tokens": tokens_each,
                "temperature": temperature,
                "top_k": top_k,
                "top_p": top_p,
                "min_p": min_p,
            },
        }
    )
    from trimtab.lm.load import open_model

    say(f"opening the model {model_name}")
    model = open_model(model_name, device=device, dtype=dtype, blocks=blocks, say=say)
    if dry_run:
        say_cost(spec.texts, estimate(model, spec, folder, batch_size=batch_size), as_json)
        return
    on = On(where, workers)
    with Bars() as bars:

        def show(now: Progress) -> None:
            bars.show("writing", now.done, now.rows, f"{now.tokens_per_second:.0f} tokens/s")

        try:
            draw(model, spec, folder, batch_size=batch_size, on=on, progress=show, say=say)
        except KeyboardInterrupt:
            bars.finish()
            complain(f"The same command goes on with {folder}.")
            raise
    say(f"wrote {spec.texts:,} texts to {folder}")
    if as_json:
        print_json({"folder": folder, "texts": spec.texts})


def _lines(path: Path) -> list[str]:
    from trimtab.errors import FileError

    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read as a file of openers: {error}") from None
