"""`trimtab demo`: three everyday concepts, steered and proved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from trimtab.cli import options as o
from trimtab.cli.build import open_pair
from trimtab.cli.console import err, out, save_svg
from trimtab.cli.progress import Bars

EXAMPLES = """Examples:

\b
  trimtab demo
  trimtab demo --samples 3 --html demo.html
  trimtab demo --json > demo.json
"""

Html = Annotated[Path, typer.Option("--html", metavar="FILE", help="Where the page with all samples goes.")]
Svg = Annotated[
    Path | None, typer.Option("--svg", metavar="FILE", help="Also write what the terminal shows as a picture.")
]


def run(
    samples: o.ArmSamples = 8,
    html: Html = Path("trimtab-demo.html"),
    svg: Svg = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Steer Gemma-3-270M along features of its SAE, and show the proof.

    Features and strengths are chosen by rule for three everyday concepts, before any text is written; every sample is
    kept, and a concept that fails is shown as failed. Needs no network. The exit code is 0 whatever the verdicts are.
    """
    from trimtab.evidence.demo import demonstrate

    model, sae = open_pair(o.DEFAULT, o.DEFAULT, None, None, None, need_sae=True)
    assert sae is not None
    console = (err if as_json else out)(record=svg is not None)
    with Bars() as bars:

        def say(what: RenderableType) -> None:
            bars.finish()
            console.print(what)

        result = demonstrate(model, sae, say, samples=samples, seed=seed, page=html, progress=bars.show)
    if svg is not None:
        save_svg(console, svg, "trimtab demo")
    if as_json:
        print(result.to_json())
