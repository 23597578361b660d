"""`trimtab index`: make an index of what every feature fires on, and make things of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli import indexing
from trimtab.cli import map as map_command
from trimtab.cli.console import out, print_json
from trimtab.cli.indexing import Folder, Out
from trimtab.cli.options import Json
from trimtab.cli.progress import Bars

EXAMPLES = """Examples:

\b
  trimtab index build books.jsonl --out runs/index --tokens 1000000 --heldout unseen.jsonl
  trimtab index label runs/index --endpoint http://localhost:8080/v1 --llm my-model --heldout unseen.jsonl -f 123
  trimtab index map runs/index --out runs/map.svg
  trimtab index pack runs/index --out runs/small
  trimtab index site runs/index --out runs/site
  trimtab index export runs/index --out runs/neuronpedia --model-id gemma-3-270m --source-id 7-trimtab
  trimtab index import runs/index downloads/7-gemmascope-res-16k --json
"""

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Make an index of what every feature fires on, and use it."
)
group.command()(indexing.build)
group.command()(indexing.label)
group.command(name="map")(map_command.run)


@group.command()
def pack(
    folder: Folder,
    out_folder: Out,
    top: Annotated[int, typer.Option("--top", min=1, help="Strongest examples of each feature that stay.")] = 5,
    random: Annotated[int, typer.Option("--random", min=0, help="Random firings that stay.")] = 2,
    per_band: Annotated[int, typer.Option("--per-band", min=0, help="Examples of each half octave that stay.")] = 1,
    before: Annotated[int, typer.Option("--before", min=0, help="Tokens of an example before the firing one.")] = 14,
    after: Annotated[int, typer.Option("--after", min=0, help="Tokens of an example after it.")] = 6,
    as_json: Json = False,
) -> None:
    """Write a smaller copy of an index, to pass on: fewer and shorter examples, rounded activations."""
    from trimtab.index import pack as p
    from trimtab.index.store import open_index

    wanted = {"top": top, "random": random, "per_band": per_band, "before": before, "after": after}
    made = p.pack(open_index(folder), out_folder, p.PackSpec.parse(wanted))
    size = sum(file.stat().st_size for file in made.folder.rglob("*") if file.is_file())
    result = {"index": str(made.folder), "bytes": size}
    print_json(result) if as_json else out().print(f"{made.folder}  {size / 1e6:.1f} MB", markup=False)


@group.command()
def site(folder: Folder, out_folder: Out, as_json: Json = False) -> None:
    """Write a static site: a page for every feature, a search, and the map if there is one (`trimtab index map`).

    It opens from disk and from any web server.
    """
    from trimtab.index.site import write_site
    from trimtab.index.store import open_index

    index = open_index(folder)
    with Bars() as bars:
        made = write_site(index, out_folder, progress=lambda done: bars.show("pages", done, index.features))
    print_json({"site": str(made)}) if as_json else out().print(str(made / "index.html"), markup=False)


@group.command()
def export(
    folder: Folder,
    out_folder: Out,
    model_id: Annotated[str, typer.Option("--model-id", help="Neuronpedia's name of the model.")],
    source_id: Annotated[str, typer.Option("--source-id", help="LAYER-SET, such as 7-trimtab.")],
    as_json: Json = False,
) -> None:
    """Write an index in the shape of Neuronpedia's bulk exports."""
    from trimtab.index.neuronpedia import write_export
    from trimtab.index.store import open_index

    made = write_export(open_index(folder), out_folder, model_id=model_id, source_id=source_id)
    print_json({"export": str(made)}) if as_json else out().print(str(made), markup=False)


@group.command(name="import")
def take(
    folder: Folder,
    export_folder: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder of a Neuronpedia export.")],
    expect: Annotated[
        str | None, typer.Option("--expect", metavar="MODEL/SOURCE", help="Refuse an export of another SAE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take over the labels of a Neuronpedia export of the same SAE."""
    from trimtab.index.labels import add_labels
    from trimtab.index.neuronpedia import open_export
    from trimtab.index.store import open_index

    index = open_index(folder)
    found = {i: labels[0] for i, labels in open_export(export_folder, expect=expect).labels().items()}
    add_labels(index, found)
    print_json({"labels": len(found)}) if as_json else out().print(f"{len(found):,} labels", markup=False)
