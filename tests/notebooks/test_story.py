"""The notebook runs from top to bottom on the default model, and its story holds together."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import get_args

from trimtab.evidence.values import Verdict

STORY = Path(__file__).parents[2] / "notebooks" / "story.py"


def test_the_story_runs_and_ends_in_a_proof() -> None:
    spec = importlib.util.spec_from_file_location("story", STORY)
    assert spec is not None
    assert spec.loader is not None
    notebook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(notebook)
    _, made = notebook.app.run()
    assert made["features"]
    assert {"mean_difference", "per_prompt", "caa"} <= set(made["fits"])
    assert made["fits"]["caa"].low > 0  # the sea can be steered towards, features or not
    assert [point.factor for point in made["curve"].points] == [-1, 0.5, 1, 2]
    kl = {point.factor: point.kl for point in made["curve"].points}
    assert kl[0.5] < kl[1] < kl[2]
    assert {line.factor for line in made["lines"]} == {-1.0, 0.0, 1.0}
    assert made["evidence"].arm("recipe").scores
    assert made["evidence"].verdict in get_args(Verdict)  # whatever it is, the notebook says it
    assert {arm.name for arm in made["evidence"].arms} == {"unsteered", "recipe", "random", "sign-flipped"}
    assert made["loaded"] == made["recipe"]
    assert [line.factor for line in made["tried"]] == [0.0, 1.0]
    assert any(strength > 0 for strength in made["tried"][1].strengths)
