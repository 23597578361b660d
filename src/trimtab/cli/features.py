"""`trimtab features`: find features by words, by a text, or by a vector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json

if TYPE_CHECKING:
    from trimtab.index.search import Hit
    from trimtab.index.store import Index

EXAMPLES = """Examples:

\b
  trimtab features "fire flame"
  trimtab features --text "The house was on fire."
  trimtab features --vector direction.npy --index runs/index --json
"""

IndexFolder = Annotated[
    str | None,
    typer.Option(
        "--index",
        metavar="FOLDER",
        help="Folder of an index, or s3://bucket/folder.",
        show_default="that of the shipped SAE",
    ),
]


def run(
    words: Annotated[
        str | None, typer.Argument(metavar="WORDS", help="Words of labels, tokens and examples.", show_default=False)
    ] = None,
    text: Annotated[str | None, typer.Option("--text", help="List the features that fire in this text.")] = None,
    vector: Annotated[
        Path | None,
        typer.Option("--vector", metavar="FILE", help="List the nearest decoder rows: .npy, .json or .safetensors."),
    ] = None,
    index_folder: IndexFolder = None,
    most: Annotated[int, typer.Option("--most", min=1, help="How many to list.")] = 20,
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Find features by words, by a text in which they fire, or by a vector that their decoder rows point along."""
    from trimtab.errors import InputError
    from trimtab.index import search

    if sum(x is not None for x in (words, text, vector)) != 1:
        raise InputError("Give WORDS, --text or --vector, and only one of them.")
    index = open_chosen(index_folder, sae_name)
    if words is not None:
        _print_hits(search.find(index, words, most=most), as_json)
        return
    from trimtab.cli.build import open_pair, read_vector

    if vector is not None:
        from trimtab.sae.load import open_sae

        sae = open_sae(sae_name or o.DEFAULT)
        _print_hits(search.nearest(sae, read_vector(vector), index, most=most), as_json)
        return
    model, opened = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert opened is not None
    assert text is not None
    tokens, found = search.firing(model, opened, text, index, most=most)
    if as_json:
        print_json({"tokens": tokens, "features": [vars(one) for one in found]})
        return
    from trimtab.report.blocks import narrow

    for one in found:
        share = "new" if one.share is None else f"{one.share:.0%}"
        line = narrow(tokens, one.values)
        out().print(Text.assemble(f"{one.feature:>6}  {share:>5}  ", line, (f"  {one.label}", "dim")))


def open_chosen(folder: str | None, sae_name: str | None = None) -> Index:
    """The index that is named, or the one that comes with a shipped SAE (None: the default one)."""
    from trimtab.errors import InputError
    from trimtab.index.store import open_index
    from trimtab.sae.shipped import list_saes

    if folder is not None:
        return open_index(folder)
    wanted = sae_name or o.DEFAULT
    for one in list_saes():
        if one.name == wanted and (one.path / "index" / "index.json").is_file():
            return open_index(one.path / "index")
    raise InputError(
        f"No index of the SAE {wanted!r} comes with trimtab: name one with --index (`trimtab index build` makes one)."
    )


def _print_hits(hits: list[Hit], as_json: bool) -> None:
    if as_json:
        found: list[dict[str, Any]] = [vars(hit) for hit in hits]
        print_json(found)
        return
    for hit in hits:
        out().print(Text.assemble(f"{hit.feature:>6}  {hit.score:.3f}  ", hit.label, (f"  {hit.why}", "dim")))
    if not hits:
        out().print("No feature matches.", markup=False)
