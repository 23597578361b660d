"""`trimtab pairs`: contrast sets, shipped ones to look at and to copy, new ones written for a concept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.errors import InputError

if TYPE_CHECKING:
    from trimtab.find.pairs import ContrastSet

EXAMPLES = """Examples:

\b
  trimtab pairs --list
  trimtab pairs sea
  trimtab pairs sea -o my-sea.jsonl
  trimtab pairs "speaking like a pirate" -o pirate.jsonl
  trimtab pairs "speaking like a pirate" -o pirate.jsonl --endpoint http://localhost:8080/v1 --endpoint-model big
"""


def run(
    concept: Annotated[
        str | None,
        typer.Argument(
            metavar="[CONCEPT]",
            help="A shipped set or a file to look at or copy; any other words are a concept to write pairs for.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The new .jsonl file, one pair a line.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the shipped sets.")] = False,
    pairs: Annotated[int, typer.Option("--pairs", "-n", min=8, help="How many pairs to write.")] = 60,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="URL", help="An OpenAI-compatible address that writes, not the local model."
        ),
    ] = None,
    endpoint_model: Annotated[
        str | None, typer.Option("--endpoint-model", metavar="NAME", help="Which model writes at the endpoint.")
    ] = None,
    key_variable: Annotated[
        str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
    ] = "OPENAI_API_KEY",
    model_name: o.ModelName = o.DEFAULT,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Look at, copy or write contrast sets: texts that show a concept beside texts that do not.

    The file is meant to be read and edited before `trimtab find` uses it: one {"positive": ..., "negative": ...} a
    line. The local model is small and wanders off; an endpoint with a larger one writes better pairs.
    """
    from trimtab.find.sources import SHIPPED_ABOUT, read, shipped_names

    if listed or concept is None:
        _list(SHIPPED_ABOUT, as_json)
        return
    known = concept in shipped_names() or Path(concept).exists()
    if to is not None and to.exists():
        raise InputError(f"{to} exists already, perhaps with your edits in it. Name a new file, or remove it first.")
    if known and endpoint is None:
        made = read(concept)
    elif to is None:
        names = ", ".join(shipped_names())
        raise InputError(f"{concept!r} is no shipped set ({names}) and no file. To write pairs for it, give -o FILE.")
    else:
        made = _write(concept, pairs, endpoint, endpoint_model, key_variable, model_name, seed)
    if to is not None:
        made.save(to)
        say(f"wrote {to}: {len(made)} {'pairs' if made.paired else 'texts a side'}")
    _show(made, as_json, 3 if to is not None else len(made))


def _write(
    concept: str, n: int, endpoint: str | None, name: str | None, key_variable: str, model_name: str, seed: int
) -> ContrastSet:
    from trimtab.find.write import pairs_from_endpoint, pairs_from_model

    if endpoint is not None:
        if name is None:
            raise InputError("--endpoint needs --endpoint-model, the name of the model that writes there.")
        key = os.environ.get(key_variable)
        return pairs_from_endpoint(concept, n, url=endpoint, model=name, key=key, seed=seed, say=say)
    from trimtab.lm.load import open_model

    say(f"opening the model {model_name}")
    return pairs_from_model(concept, n, open_model(model_name, say=say), seed=seed, say=say)


def _list(about: dict[str, tuple[str, str]], as_json: bool) -> None:
    from trimtab.find.sources import shipped

    sets = {name: shipped(name) for name in about}
    if as_json:
        print_json(
            [{"name": n, "pairs": len(s), "positive": about[n][0], "negative": about[n][1]} for n, s in sets.items()]
        )
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("set", "pairs", "positive side", "negative side"):
        table.add_column(heading, justify="right" if heading == "pairs" else "left")
    for name, made in sets.items():
        table.add_row(Text(name, style="bold"), str(len(made)), *about[name])
    out().print(table)
    out().print(Text("\nRead one: trimtab pairs NAME.  Use one: trimtab find --pairs NAME.", style="dim"))


def _show(made: ContrastSet, as_json: bool, rows: int) -> None:
    from trimtab.find.pairs import audit

    found = audit(made)
    if as_json:
        print_json(
            {
                "name": made.name, "source": made.source, "paired": made.paired, "digest": made.digest,
                "positive": made.positive, "negative": made.negative,
                "duplicates": found.duplicates, "near_duplicates": found.near,
            }
        )  # fmt: skip
        return
    console = out()
    for i, (yes, no) in enumerate(zip(made.positive[:rows], made.negative[:rows], strict=True)):
        console.print(Text(f"{i + 1:4d}  + ", style="dim") + Text(yes))
        console.print(Text("      − ", style="dim") + Text(no, style="dim"))
    sizes = (
        f"{len(made)} pairs" if made.paired else f"{len(made.positive)} positive, {len(made.negative)} negative texts"
    )
    repeated = (
        "no text repeated" if found.clean else f"{len(found.duplicates)} repeated, {len(found.near)} nearly repeated"
    )
    console.print(Text(f"{made.name}: {sizes}, {repeated}; {made.source}", style="bold"))
