"""`trimtab runs`: what run folders hold, and how they go on."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli import options as o
from trimtab.cli.console import complain, out, print_json, say
from trimtab.errors import FileError, InputError, TrimtabError

if TYPE_CHECKING:
    from trimtab.scale.store import Store

EXAMPLES = """Examples:

\b
  trimtab runs list runs --json
  trimtab runs verify runs/first
  trimtab runs resume s3://bucket/runs/first
"""

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, here or at s3://bucket/folder.")]
COMMANDS = {"sweep": ["sweep"], "corpus": ["corpus", "sample"], "index": ["index", "build"], "benchmark": ["bench"]}
"""The command that makes each kind of run."""

group = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at run folders, check them, go on with them."
)


@group.command(name="list")
def list_(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A folder with run folders in it, or one of them.")],
    as_json: o.Json = False,
) -> None:
    """List the runs in a folder: what each is, and how much of it is done."""
    from trimtab.scale.folder import MANIFEST
    from trimtab.scale.store import open_store

    store = open_store(folder)
    places = [store] if store.exists(MANIFEST) else [store / name for name in store.folders()]
    found = [_about(place) for place in places if place.exists(MANIFEST)]
    if as_json:
        print_json(found)
        return
    if not found:
        raise FileError(f"{folder} holds no runs.")
    from rich.table import Table

    table = Table("run", "kind", "parts", "of", "damaged or missing", box=None)
    for one in found:
        table.add_row(one["run"], one["kind"], str(one["done"]), str(one["units"] or "?"), str(len(one["wrong"])))
    out().print(table)


@group.command()
def show(run: Run, as_json: o.Json = False) -> None:
    """Show a run: what was asked, with what, how far it is, and what its log says of the last stretch."""
    from trimtab.scale.folder import read_manifest

    store = _open(run)
    about, manifest = _about(store), read_manifest(store)
    about |= {"manifest": manifest, "log": _last_log(store)}
    if as_json:
        print_json(about)
        return
    print(
        f"{about['run']}: a {about['kind']}, {about['done']} of {about['units'] or '?'} parts, {about['bytes']:,} bytes"
    )
    if manifest.get("command"):
        print(f"made by: {shlex.join(['trimtab', *manifest['command']])}")
    for words in manifest.get("added", []):
        print(f"and by: {shlex.join(['trimtab', *words])}")
    for key in sorted(manifest.keys() - {"format", "kind", "command", "added", "units"}):
        print(f"{key}: {json.dumps(manifest[key], ensure_ascii=False)}")
    for line in about["wrong"]:
        print(line)
    if about["log"]:
        print(_stretch(about["log"]))


def _stretch(log: list[dict[str, Any]]) -> str:
    """The last stretch of a run in one line."""
    first, last = log[0], log[-1]
    done, lost = (sum(line["what"] == what for line in log) for what in ("done", "lost"))
    seconds = last["time"] - first["time"]
    end = " ".join([last["what"], *([last["said"]] if last.get("said") else [])])
    where = f"{first.get('where')}, workers {first.get('workers')}"
    return f"last stretch: {done} parts in {seconds:.0f} s on {where}, lost workers {lost}; it ended with: {end}"


@group.command()
def verify(run: Run, as_json: o.Json = False) -> None:
    """Check every part of a run against its checksum. Exit code 1 when one is damaged or missing."""
    about = _about(_open(run))
    if as_json:
        print_json(about)
    else:
        for line in about["wrong"]:
            print(line)
        print(f"{about['done']} parts are as they were written, {about['bytes']:,} bytes")
    if about["wrong"]:
        complain("What is damaged is written again by `trimtab runs resume`.")
        raise typer.Exit(1)


@group.command()
def resume(
    run: Run,
    where: Annotated[str | None, typer.Option("--on", metavar="WHERE", help="As before, unless it is given.")] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="As before, unless it is given.")] = None,
) -> None:
    """Go on with a run: the commands of its manifest again, which write what is missing or damaged."""
    from trimtab.cli.app import app
    from trimtab.scale.folder import read_manifest

    manifest = read_manifest(_open(run))
    kind, commands = manifest["kind"], [manifest.get("command"), *manifest.get("added", [])]
    for words in commands:
        if not words:
            raise InputError(f"{run} was not made by a command: call what made it again.")
        if kind not in COMMANDS:
            raise InputError(
                f"{run} is a part of what another command makes; say that again: {shlex.join(['trimtab', *words])}"
            )
        if words[: len(COMMANDS[kind])] != COMMANDS[kind]:
            raise FileError(f"The manifest of {run} names a command that makes no {kind}: {words[:2]}.")
    changed = {"--out": run, "--on": where, "--workers": None if workers is None else str(workers)}
    for words in commands:
        words = _with(words, changed)
        say(shlex.join(["trimtab", *words]))
        code = app(words, prog_name="trimtab", standalone_mode=False)
        if code:
            raise typer.Exit(code)


def _with(words: list[str], options: dict[str, str | None]) -> list[str]:
    """The words of a command with some options replaced. -o is another name of --out, whose value is always given, and
    what is resumed goes on to its end.
    """
    kept, skip = [], False
    gone = {name for name, value in options.items() if value is not None} | {"-o", "--minutes"}
    for word in words:
        if skip or any(word.startswith(f"{name}=") for name in gone if name.startswith("--")):
            skip = False
        elif word in gone:
            skip = True
        else:
            kept.append(word)
    return kept + [word for name, value in options.items() if value is not None for word in (name, value)]


def _open(run: str) -> Store:
    from trimtab.scale.folder import MANIFEST
    from trimtab.scale.store import open_store

    store = open_store(run)
    if not store.exists(MANIFEST):
        raise FileError(f"{run} is not a run folder: it has no {MANIFEST}.")
    return store


def _about(store: Store) -> dict[str, Any]:
    from trimtab.scale.folder import RunFolder, read_manifest

    try:
        manifest = read_manifest(store)
    except TrimtabError as error:
        return {"run": str(store), "kind": "?", "done": 0, "units": None, "bytes": 0, "wrong": [str(error)]}
    folder, units = RunFolder(store, manifest["kind"]), manifest.get("units")
    entries = folder.entries()
    wrong = {unit: folder.wrong(entry) for unit, entry in entries.items()}
    sound = [entry for unit, entry in entries.items() if not wrong[unit]]
    return {
        "run": str(store),
        "kind": manifest["kind"],
        "done": len(sound),
        "units": len(units) if isinstance(units, dict) else units,
        "bytes": sum(size for entry in sound for size, _ in entry.files.values()),
        "wrong": [line for lines in wrong.values() for line in lines],
    }


def _last_log(store: Store) -> list[dict[str, Any]]:
    names = store.names("log/*.jsonl")
    return [json.loads(line) for line in store.read(names[-1]).decode().splitlines()] if names else []
