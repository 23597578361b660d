"""`trimtab index map`: lay out the features of an index by their decoder rows, and draw them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.cli.indexing import Folder


def run(
    folder: Folder,
    picture: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Also draw it, as .svg or .png.")
    ] = None,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=2, help="Neighbours that UMAP looks at: more shows larger shapes.")
    ] = 15,
    again: Annotated[bool, typer.Option("--again", help="Lay out the features anew even if there is a map.")] = False,
    sae_name: o.SaeName = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Lay out the features so that similar decoder rows lie near each other, coloured by cluster.

    The map is kept with the index; `trimtab index site` shows it. Making one needs umap-learn:
    pip install 'trimtab[map]'.
    """
    from trimtab.index import map as m
    from trimtab.index.store import open_index, titles

    index = open_index(folder)
    if picture is not None:
        m.check_picture(picture)
    points = None if again else m.read_map(index)
    if points is None:
        from trimtab.sae.load import open_sae

        say("laying out the features (about a minute for 16,384)")
        points = m.add_map(open_sae(sae_name or o.DEFAULT), index, neighbours=neighbours, seed=seed)
    known = titles(index)
    clusters = m.names(points.cluster, [known[int(i)] for i in points.feature])
    if picture is not None:
        m.write_picture(points, clusters, picture, index.describe())
    if as_json:
        print_json(
            {
                "features": len(points.feature),
                "clusters": clusters,
                "loose": int((points.cluster < 0).sum()),
                "picture": picture and str(picture),
            }
        )
        return
    out().print(f"{len(points.feature):,} features, {len(clusters):,} clusters", markup=False)
    for number, name in enumerate(clusters[:12]):
        out().print(f"  {(points.cluster == number).sum():>6,}  {name or '(no common word)'}", markup=False)
    if picture is not None:
        out().print(str(picture), markup=False)
