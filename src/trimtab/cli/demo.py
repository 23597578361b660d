"""`trimtab demo`: three everyday concepts, steered and proved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trimtab.cli.options import Json, Seed

EXAMPLES = """Examples:

\b
  trimtab demo
  trimtab demo --samples 5 --html demo.html
  trimtab demo --json > demo.json
"""


def run(
    samples: Annotated[int, typer.Option("--samples", "-n", min=2, help="Texts per prompt, in every arm.")] = 8,
    html: Annotated[Path, typer.Option("--html", metavar="FILE", help="Where the report goes.")] = Path(
        "trimtab-demo.html"
    ),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Steer Gemma-3-270M along features of its SAE, and show the proof.

    Features are picked by rule for three everyday concepts; every sample is kept and a concept that fails is shown as
    failed. Needs no network once trimtab is installed.
    """
    raise NotImplementedError
