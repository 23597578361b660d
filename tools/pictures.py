"""Draw the pictures of docs/concepts.md: a feature, a verdict, a dose curve, as the product shows them (a minute)."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from trimtab.cli.features import open_chosen
from trimtab.evidence.verify import verify
from trimtab.files import write_file
from trimtab.index.show import show
from trimtab.lm.load import open_model
from trimtab.report import terminal
from trimtab.report.curves import draw
from trimtab.sae.load import open_sae
from trimtab.steer.dose import measure_dose
from trimtab.steer.dose_picture import picture
from trimtab.steer.recipe import Recipe

FOLDER = Path(__file__).parent.parent / "docs" / "img"
FEATURE, STRENGTH = 11330, 0.5
FACTORS = (-2.0, -1.0, -0.5, 0.25, 0.5, 1.0, 2.0, 4.0)
PROMPTS = ("Once upon a time", "I walked into the room and", "The most interesting thing about")


def save(console: Console, name: str, title: str) -> None:
    """What the console has shown, as an SVG without the web fonts that rich names."""
    drawn = re.sub(r"@font-face\s*\{.*?\}", "", console.export_svg(title=title, unique_id=name), flags=re.DOTALL)
    with write_file(FOLDER / f"{name}.svg") as part:
        part.write_text(drawn, encoding="utf-8")


def recorder() -> Console:
    return Console(record=True, width=110, highlight=False, file=Path("/dev/null").open("w"), force_terminal=True)


def main() -> None:
    console = recorder()
    for line in show(open_chosen(None).feature(FEATURE), 3):
        console.print(line)
    save(console, "feature", f"trimtab feature {FEATURE} --examples 3")
    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    recipe = Recipe.add(sae, {FEATURE: STRENGTH})
    evidence = verify(model, sae, recipe, PROMPTS, samples=4, max_new_tokens=20, controls=("random",)).as_dict()
    console = recorder()
    console.print(terminal.verdict(evidence))
    console.print(terminal.table(evidence))
    for shown in terminal.samples(evidence, per_prompt=1):
        console.print(shown)
    save(console, "verdict", f"trimtab verify ... --feature {FEATURE}:{STRENGTH}")
    draw(FOLDER / "dose.svg", picture(measure_dose(model, recipe, FACTORS, sae=sae, texts=6)))


if __name__ == "__main__":
    main()
