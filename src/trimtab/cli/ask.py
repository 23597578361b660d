"""`trimtab ask`: what a recipe does to a model's answers to model-written questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli import options as o
from trimtab.cli.build import open_several
from trimtab.cli.console import command_line, out, print_json, say
from trimtab.cli.progress import Bars
from trimtab.errors import FileError, InputError

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE
    from trimtab.steer.recipe import Recipe

EXAMPLES = """Examples:

\b
  trimtab ask agreeableness.jsonl --recipe agreeable.recipe.safetensors
  trimtab ask agreeableness.jsonl --recipe agreeable.recipe.safetensors --strength -3 --strength 3 --html answers.html
  trimtab ask agreeableness.jsonl --recipe agreeable.recipe.safetensors --questions 400 --prompt none --json
"""

PROMPTS = ("I am the kind of person who", "What matters most to me is", "When someone disagrees with me, I")


def run(
    questions_file: Annotated[
        str,
        typer.Argument(
            metavar="EVAL",
            help="A model-written eval: rows of question, answer_matching_behavior and answer_not_matching_behavior.",
            show_default=False,
        ),
    ],
    recipe_file: Annotated[Path, typer.Option("--recipe", metavar="FILE", help="The recipe to measure.")],
    strengths: Annotated[
        list[float] | None,
        typer.Option(
            "--strength",
            metavar="X",
            help="Multiple of the recipe; may be given several times.",
            show_default="-2, -1, 1, 2",
        ),
    ] = None,
    questions: Annotated[
        int, typer.Option("--questions", min=2, help="At most this many questions, as many of each matching answer.")
    ] = 100,
    statements: Annotated[
        int, typer.Option("--statements", min=0, help="Of how many questions a side the statement is read as a text.")
    ] = 20,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt",
            metavar="TEXT",
            help="Also complete this at every strength; may be given several times. 'none' for none.",
            show_default="three openings in the first person",
        ),
    ] = None,
    samples: o.Samples = 1,
    max_new_tokens: o.NewTokens = 40,
    model_name: o.ModelName = o.DEFAULT,
    sae_names: o.SaeNames = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one self-contained page.")
    ] = None,
    seed: o.Seed = 0,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Measure what a recipe does to answers, statements and completions that are about a behaviour.

    Every question is asked in both orders of its answers, at several strengths and both signs, and the log-odds of
    the answer that matches the behaviour are compared with the unsteered model's.
    """
    from trimtab.evidence.questions import balanced, read_questions

    chosen = balanced(read_questions(questions_file), questions, seed)
    if not recipe_file.is_file():
        raise FileError(f"No such file: {recipe_file}")
    if strengths is not None and not any(strengths):
        raise InputError("--strength 0 alone measures nothing; the unsteered model is always asked.")
    model, saes = open_several(model_name, sae_names, device, dtype, blocks)
    from trimtab.evidence.ask import STRENGTHS, ask
    from trimtab.steer.recipe import Recipe

    recipe = Recipe.load(recipe_file)
    with Bars() as bars:
        found = ask(model, recipe, chosen, strengths or STRENGTHS, statements=statements, seed=seed, progress=bars.show)
    data: dict[str, Any] = {"behaviour": Path(questions_file).name.split(".")[0], **found.model_dump(mode="json")}
    data["completions"] = _complete(model, saes, recipe, prompts, found.strengths, samples, max_new_tokens, seed)
    if html is not None:
        from trimtab.report.asked_page import write_asked

        write_asked(html, data, command_line())
        say(f"wrote {html}")
    if as_json:
        print_json(data)
        return
    from trimtab.report.asked import asked

    for part in asked(data):
        out().print(part)


def _complete(
    model: Model, saes: list[SAE], recipe: Recipe, prompts: list[str] | None, strengths: tuple[float, ...],
    samples: int, max_new_tokens: int, seed: int,
) -> list[dict[str, Any]]:  # fmt: skip
    from trimtab.evidence.lines import steered_lines

    if prompts == ["none"]:
        return []
    made = steered_lines(
        model, saes, recipe, prompts or PROMPTS, strengths, samples=samples, max_new_tokens=max_new_tokens, seed=seed
    )
    return [one.as_dict() for one in made]
