"""`trimtab saes`: which SAEs can be opened, and what the shipped ones are worth."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from trimtab.cli.console import out, print_json
from trimtab.cli.options import Json

EXAMPLES = """Examples:

\b
  trimtab saes
  trimtab saes --search gpt2
  trimtab saes --json
"""

NAMING = """\
Other SAEs, as --sae NAME or trimtab.open_sae(NAME):
  RELEASE/ID          of SAELens' registry, such as gpt2-small-res-jb/blocks.8.hook_resid_pre; --search finds names
  USER/REPO/FOLDER    in a Hugging Face repository
  a folder or file    SAELens (v6 and before), Gemma Scope params.npz, Gemma Scope 2 params.safetensors,
                      EleutherAI sparsify, or a .pt file of two linear layers"""


def run(
    search: Annotated[
        str | None,
        typer.Option("--search", metavar="TEXT", help="List the names in SAELens' registry that contain TEXT."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the SAEs that come with trimtab, with their measured quality, and say how to name others."""
    if search is not None:
        _print_found(search, as_json)
        return
    from trimtab.sae.shipped import list_saes

    listed = list_saes()
    if as_json:
        print_json([{**vars(one), "path": str(one.path)} for one in listed])
        return
    console = out()
    for one in listed:
        console.print(f"{one.name}  {one.architecture}, {one.d_sae:,} features of width {one.d_in}", markup=False)
        console.print(f"  of {one.model_name} at {one.hook_name}", markup=False)
        for line in card_lines(one.card):
            console.print(f"  {line}", markup=False)
    if not listed:
        console.print("No SAE comes with this installation.", markup=False)
    console.print(f"\n{NAMING}", markup=False)


def card_lines(card: dict[str, Any]) -> list[str]:
    """The plain numbers and texts of a card, one a line; nested parts are left to --json."""
    lines = []
    for key, value in card.items():
        if isinstance(value, bool | int | float | str):
            shown = f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
            lines.append(f"{key.replace('_', ' ')}: {shown}")
    return lines


def _print_found(search: str, as_json: bool) -> None:
    from trimtab.errors import InputError
    from trimtab.sae.registry import releases

    names = [f"{release.name}/{sae}" for release in releases().values() for sae in release.paths]
    found = [name for name in names if search.lower() in name.lower()]
    if not found:
        raise InputError(f"None of the {len(names):,} SAEs in SAELens' registry has {search!r} in its name.")
    if as_json:
        print_json(found)
    else:
        out().print(Text("\n".join(found)))
