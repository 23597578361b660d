"""`trimtab train`: train an SAE on a model's residual stream."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.cli.progress import Bars

if TYPE_CHECKING:
    from trimtab.sae.activations import Progress

EXAMPLES = """Examples:

\b
  trimtab train books.jsonl --layer 9 --width 4096 --tokens 1000000 --out runs/books
  trimtab train a.parquet b.txt --model EleutherAI/pythia-70m --layer 3 --width 8192 --k 32 --out runs/pythia
  trimtab train books.jsonl --layer 9 --width 4096 --out runs/books --resume
  trimtab train roneneldan/TinyStories --preset tinystories-33m --out runs/tinystories
"""


Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="TEXTS",
        help="Files (.jsonl, .txt, .parquet, each plain or gzipped) or Hugging Face dataset names.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where everything goes; the SAE is FOLDER/sae.")]
Preset = Annotated[
    Literal["tinystories-33m"] | None,
    typer.Option("--preset", help="Settings that belong together, model included; options that are given come first."),
]
Layer = Annotated[
    int | None,
    typer.Option("--layer", help="Block whose output is read, counted from 0.", show_default="the preset's"),
]
Width = Annotated[int | None, typer.Option("--width", help="Number of features.", show_default="the preset's")]
Architecture = Annotated[
    Literal["batchtopk", "matryoshka", "topk", "jumprelu", "gated", "standard"],
    typer.Option("--architecture", help="Kind of SAE."),
]
K = Annotated[int, typer.Option("--k", help="Mean number of active features (batchtopk, matryoshka, topk).")]
Sparsity = Annotated[float, typer.Option("--sparsity", help="Sparsity penalty (jumprelu, gated, standard).")]
Tokens = Annotated[int, typer.Option("--tokens", help="Distinct tokens to collect activations of.")]
Samples = Annotated[
    int | None,
    typer.Option("--samples", help="Activations to train on; above --tokens they repeat.", show_default="--tokens"),
]
Batch = Annotated[int, typer.Option("--batch", help="Activations per step.")]
LearningRate = Annotated[float, typer.Option("--lr", help="Learning rate.")]
Context = Annotated[int, typer.Option("--context", help="Tokens the model reads at a time.")]
Field = Annotated[str, typer.Option("--field", help="The text column of .jsonl and .parquet files.")]
Heldout = Annotated[
    list[str] | None,
    typer.Option("--heldout", metavar="TEXTS", help="Unseen texts for the card's numbers; may be given several times."),
]
SaveDtype = Annotated[
    Literal["float32", "bfloat16"], typer.Option("--save-dtype", help="How the two weight matrices are stored.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out where it stopped.")]


def run(
    ctx: typer.Context,
    texts: Texts,
    out_folder: Out,
    layer: Layer = None,
    width: Width = None,
    preset: Preset = None,
    model_name: o.ModelName = o.DEFAULT,
    architecture: Architecture = "batchtopk",
    k: K = 32,
    sparsity: Sparsity = 1.0,
    tokens: Tokens = 1_000_000,
    samples: Samples = None,
    batch: Batch = 2048,
    lr: LearningRate = 7e-4,
    context: Context = 128,
    field: Field = "text",
    save_dtype: SaveDtype = "float32",
    heldout: Heldout = None,
    resume: Resume = False,
    where: o.Where = "local",
    workers: o.Workers = 1,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Train an SAE on texts: collect activations, train, measure, and write a card.

    A run that was interrupted goes on with the same command and --resume, and ends with the same result.
    """
    from trimtab.errors import InputError
    from trimtab.files import read_json
    from trimtab.sae.presets import PRESETS
    from trimtab.sae.train import TrainSpec, train
    from trimtab.scale.run import On

    asked = {
        "layer": layer,
        "width": width,
        "architecture": architecture,
        "k": k,
        "sparsity": sparsity,
        "tokens": tokens,
        "samples": samples,
        "batch": batch,
        "lr": lr,
        "context": context,
        "field": field,
        "save_dtype": save_dtype,
        "seed": seed,
        "model_name": model_name,
    }
    if preset is not None:
        asked |= {name: value for name, value in PRESETS[preset].items() if not _given(ctx, name)}
    if asked["layer"] is None or asked["width"] is None:
        raise InputError("Say what to train: --layer and --width, or --preset tinystories-33m.")
    model_name = str(asked.pop("model_name"))
    spec = TrainSpec.parse(asked)
    started = (out_folder / "spec.json").is_file()
    if started and not resume:
        raise InputError(f"{out_folder} holds a run already: add --resume to go on with it, or choose another folder.")
    if resume and not started:
        raise InputError(f"There is no run in {out_folder} to resume; leave out --resume to start one.")
    from trimtab.lm.load import open_model

    say(f"opening the model {model_name}")
    model = open_model(model_name, device=device, dtype=dtype, blocks=blocks, say=say)
    with Bars() as bars:

        def show(p: Progress) -> None:
            bars.show(p.stage, p.done, p.total, f"{p.rate:,.0f} {p.unit}/s  {p.note}")

        folder = train(model, texts, spec, out_folder, heldout=heldout, on=On(where, workers), progress=show, say=say)
    card = read_json(folder / "card.json")
    if as_json:
        print_json({"sae": str(folder), "card": card})
        return
    from trimtab.cli.saes import card_lines

    out().print("\n".join([str(folder), *(f"  {line}" for line in card_lines(card))]), markup=False)


def _given(ctx: typer.Context, name: str) -> bool:
    """Whether the option was typed, rather than left at its default."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
