"""`trimtab saes`: which SAEs can be opened, and what the shipped ones are worth."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from trimtab.cli.console import out, print_json, say
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
        typer.Option("--search", metavar="TEXT", help="List SAEs of SAELens' registry with TEXT in their names."),
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
    """A card in words, one fact a line; --json has all of it."""
    lines = []
    if "fvu" in card:
        rest = f"{card['fvu_without_largest_dimension']:.3f} without the largest dimension"
        tokens = f"{card['reconstruction_tokens']:,} tokens of {', '.join(card['heldout'])}"
        lines.append(f"FVU {card['fvu']:.3f} ({rest}) at L0 {card['l0']:.1f}, on {tokens}")
        loss = f"{card['ce_clean']:.3f} clean, {card['ce_spliced']:.3f} spliced, {card['ce_zero']:.3f} zeroed"
        lines.append(f"cross-entropy recovered {card['ce_recovered']:.4f} ({loss})")
        lines.append(f"{card['alive']:.1%} of features fired on {card['feature_tokens']:,} tokens")
        lines.append(f"mean largest cosine between decoder rows {card['decoder_max_cosine_mean']:.2f}")
    trained = card.get("trained", {})
    if trained:
        speed = "{tokens_per_second_model:,} tokens/s model, {samples_per_second_sae:,} samples/s SAE".format(**trained)
        lines.append(f"trained on {trained['distinct_tokens']:,} tokens, {trained['samples']:,} samples ({speed})")
    if "why_this_layer" in card:
        lines.append(card["why_this_layer"])
    return lines


def _print_found(search: str, as_json: bool) -> None:
    from trimtab.errors import InputError
    from trimtab.sae.registry import releases

    every = [(f"{release.name}/{sae}", release.fits(sae)) for release in releases().values() for sae in release.paths]
    matching = [(name, fits) for name, fits in every if search.lower() in name.lower()]
    found = [name for name, fits in matching if fits]
    elsewhere = len(matching) - len(found)
    if not matching:
        raise InputError(f"None of the {len(every):,} SAEs in SAELens' registry has {search!r} in its name.")
    if elsewhere:
        say(f"{elsewhere:,} more read another place than the residual stream, and cannot be used")
    if not found:
        raise InputError(f"None of the {elsewhere:,} SAEs with {search!r} in their names is of the residual stream.")
    if as_json:
        print_json(found)
    else:
        out().print(Text("\n".join(found)))
