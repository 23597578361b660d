"""`trimtab clusters`: groups of features of a whole SAE, by the directions they write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.find.decoder import DecoderCluster

EXAMPLES = """Examples:

\b
  trimtab clusters
  trimtab clusters --feature 10935 --threshold 0.4
  trimtab clusters --sae gpt2-small-res-jb/blocks.7.hook_resid_pre -f 2592 --expect 2592,4445,4663
"""


def run(
    sae_name: Annotated[str, typer.Option("--sae", metavar="NAME", help="As for `trimtab steer`.")] = o.DEFAULT,
    features: Annotated[
        list[int] | None,
        typer.Option(
            "--feature",
            "-f",
            metavar="INDEX",
            help="Show the cluster of this feature; may be given several times.",
            show_default="the largest clusters",
        ),
    ] = None,
    threshold: Annotated[float, typer.Option("--threshold", help="Cosine above which two features are joined.")] = 0.5,
    neighbours: Annotated[
        int, typer.Option("--neighbours", min=1, help="How many of its nearest features each one is joined to.")
    ] = 2,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="I,J,...",
            help="With --feature: features known to belong together, to compare its "
            "cluster with; one list for each --feature.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most clusters to list.")] = 20,
    as_json: o.Json = False,
) -> None:
    """Cluster all features of an SAE by the cosine of their decoder rows.

    No model and no text is needed. Each feature is joined to its nearest neighbours above the threshold (Engels et
    al. 2024), and what hangs together is a cluster.
    """
    wanted = [_indices(text) for text in expect or ()]
    if wanted and len(wanted) != len(features or ()):
        raise InputError(f"{len(wanted)} lists to --expect for {len(features or ())} of --feature: give one for each.")
    from trimtab.find.decoder import decoder_clusters
    from trimtab.sae.load import open_sae

    say(f"opening the SAE {sae_name}")
    sae = open_sae(sae_name)
    chosen = sae.features(features) if features else ()
    found = decoder_clusters(sae.W_dec, threshold, neighbours)
    inside = sum(len(one.features) for one in found)
    shown: list[dict[str, Any]] = []
    if chosen:
        for i, feature in enumerate(chosen):
            mine = next((one for one in found if feature in one.features), None)
            shown.append({"feature": feature, **_values(mine, wanted[i] if wanted else None)})
    else:
        shown = [_values(one, None) for one in found[:limit]]
    whole = {"sae": sae.name, "features": sae.d_sae, "clusters": len(found), "in_clusters": inside}
    if as_json:
        print_json({**whole, "threshold": threshold, "neighbours": neighbours, "shown": shown})
        return
    console = out()
    console.print(Text(f"{sae.name}: {len(found):,} clusters hold {inside:,} of {sae.d_sae:,} features", style="bold"))
    for one in shown:
        console.print(_line(one))


def _values(found: DecoderCluster | None, expected: list[int] | None) -> dict[str, Any]:
    from trimtab.find.decoder import overlap

    members = () if found is None else found.features
    value: dict[str, Any] = {"members": members, "size": len(members), "cosine": found.cosine if found else None}
    if expected is not None:
        shared, jaccard = overlap(members, expected)
        value |= {"expected": len(expected), "shared": shared, "jaccard": jaccard}
    return value


def _line(one: dict[str, Any]) -> Text:
    line = Text(f"  feature {one['feature']}: " if "feature" in one else "  ", style="bold")
    if not one["size"]:
        line += Text("in no cluster")
    else:
        members = ", ".join(map(str, one["members"][:24])) + (", ..." if one["size"] > 24 else "")
        line += Text(f"{one['size']} features, cosine {one['cosine']:.2f}  ") + Text(members, style="dim")
    if "expected" in one:
        line += Text(f"  {one['shared']} of the {one['expected']} expected, Jaccard {one['jaccard']:.2f}", style="bold")
    return line


def _indices(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--expect takes indices with commas, such as 3,14,15, not {text!r}.") from None
