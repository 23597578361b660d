"""`trimtab serve`: steered text behind an OpenAI-compatible API."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.console import print_json, say
from trimtab.cli.features import IndexFolder, open_chosen
from trimtab.errors import InputError, UnsupportedError

if TYPE_CHECKING:
    from trimtab.index.store import Index
    from trimtab.sae.sae import SAE

EXAMPLES = """Examples:

\b
  trimtab serve
  trimtab serve --recipes recipes --port 8001
  trimtab serve --model EleutherAI/pythia-70m --no-sae
  trimtab serve --host 0.0.0.0   # with TRIMTAB_API_KEY set
"""


def run(
    model_name: o.ModelName = o.DEFAULT,
    sae_names: o.SaeNames = None,
    no_sae: Annotated[bool, typer.Option("--no-sae", help="Serve the model alone, with recipes and vectors.")] = False,
    index_folder: IndexFolder = None,
    recipes: Annotated[
        Path, typer.Option("--recipes", metavar="FOLDER", help="Where recipes are read, created and deleted.")
    ] = Path("served-recipes"),
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; any but loopback needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="What clients must send as their key. Better in TRIMTAB_API_KEY: other users of this machine see "
            "options.",
            show_default="TRIMTAB_API_KEY, else none",
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", metavar="URL", help="Pages of this origin may call the server; repeatable."),
    ] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Texts that are written at a time.")] = 32,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Texts that may wait for a place.")] = 128,
    rows: Annotated[int, typer.Option("--most-texts", min=1, help="Texts of one request.")] = 16,
    prompt_tokens: Annotated[int, typer.Option("--prompt-tokens", min=1, help="Longest prompt.")] = 1024,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest continuation.")] = 512,
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="Longest time for one request.")] = 120.0,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to finish what runs, when stopped.")] = 20.0,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it listens and what it serves as JSON.")] = False,
) -> None:
    """Serve a model to OpenAI's clients, each request with its own steering. See docs/serve.md.

    Listens on this machine alone unless --host says otherwise.
    """
    try:
        from trimtab.serve.app import create_app
        from trimtab.serve.run import KEY_VARIABLE, check_door, listen
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"The server needs the package {error.name!r}, which is not installed: pip install 'trimtab[serve]'."
        ) from None
    from trimtab.cli.build import open_pair, open_several
    from trimtab.serve.limits import Limits

    key = api_key or os.environ.get(KEY_VARIABLE) or None
    hosts = check_door(host, key)
    limits = Limits(
        slots=slots, queue=queue, rows=rows, prompt_tokens=prompt_tokens, max_tokens=max_tokens, seconds=seconds
    )
    saes: list[SAE] = []
    if no_sae:
        if sae_names or index_folder:
            raise InputError("--no-sae leaves nothing for --sae and --index to do.")
        model, _ = open_pair(model_name, None, device, dtype, blocks, need_sae=False)
    else:
        model, saes = open_several(model_name, sae_names, device, dtype, blocks)
    index = None if no_sae else _index(index_folder, sae_names[0] if sae_names else None)
    app = create_app(
        model, saes, recipes=recipes, index=index, limits=limits, key=key, hosts=hosts, origins=origins or (),
        grace=grace,
    )  # fmt: skip

    def ready(url: str) -> None:
        if as_json:
            print_json({"url": url, "model": model.name, "saes": [sae.name for sae in saes]})
            sys.stdout.flush()
        say(f"listening on {url} (OpenAI's API under {url}/v1; Ctrl-C stops)")

    listen(app, host, port, grace=grace, ready=ready)


def _index(folder: str | None, sae_name: str | None) -> Index | None:
    """The index that is named or comes with the SAE; without either none, which only the routes of features miss."""
    try:
        return open_chosen(folder, sae_name)
    except InputError:
        if folder is not None:
            raise
        return None
