"""Words and numbers that the terminal and the page of a finding share; all from its JSON form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Data = Mapping[str, Any]

SIDES = {"right": "counted from the end", "left": "counted from the start", "diff": "counted from the first difference"}

CHECKED = "On test texts: fitted anew on all the others, at the recipe's own dose, which is measured on more text."


def sizes(data: Data) -> str:
    """How large the set is and how it was split."""
    contrast, parts = data["contrast"], data["sizes"]
    if contrast["paired"]:
        whole = f"{contrast['positive']} pairs"
    else:
        whole = f"{contrast['positive']} positive and {contrast['negative']} negative texts"
    unit = "" if contrast["paired"] else " a side"
    return (
        f"{whole}: {parts['train']}{unit} to learn from, {parts['dev']} to choose with, {parts['test']} to check the "
        "choice"
    )


def repeated(data: Data) -> str:
    """What the audit of the set says."""
    exact, near = (len(data["contrast"][key]) for key in ("duplicates", "near_duplicates"))
    if not exact + near:
        return "no text is repeated"
    return f"{exact} texts are repeated and {near} nearly so; they were kept in one part"


def shift(value: Data) -> str:
    """A measured effect with its interval."""
    return f"{value['shift']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    """A number with its sign; `unscored` for None."""
    return "unscored" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def verdict(data: Data) -> str:
    """The finding in two or three sentences."""
    count = sum(len(some) for some in data["features"])
    fires = (
        f"{count or 'No'} {'feature fires' if count == 1 else 'features fire'} more on the positive side, on held-out "
        "texts too."
    )
    if not data["chosen"]:
        return (
            f"{fires} Nothing steers: no way to push the model, with features or without, makes the positive side "
            "likelier on texts that it was not made from, so there is no recipe. More pairs, or pairs that differ in "
            "less else, may help; so may an SAE of another layer."
        )
    test, base = data["test"], data["baseline_test"]
    works = "works" if test["low"] > 0 else "works the wrong way" if test["high"] < 0 else "cannot be told from chance"
    said = [
        fires,
        f"Steering with {quoted(data)} {works}: on texts that chose nothing it makes the positive side "
        f"{shift(test)} nats per token likelier than the negative one ({math.exp(test['shift']):.2f} times as likely), "
        f"at a cost of {test['kl']:.2f} nats per token.",
    ]
    if data["chosen"] != data["baseline"]:
        said.append(f"The plain mean difference at one block, without features, does {shift(base)} at the same cost.")
    return " ".join(said)


def quoted(data: Data) -> str:
    """What was chosen, and how."""
    why = "as asked" if data["settings"]["choice"] else "the best on held-out texts"
    return f"{named(data['chosen'])} ({why})"


def named(candidate: str) -> str:
    """A way to steer in words: its own name, where that says enough."""
    return {"many blocks": "mean differences at many blocks", "caa": "the mean difference at one block"}.get(
        candidate, candidate
    )


def reading(data: Data) -> str:
    """How well the sides can be told apart, by features and by the whole residual, and with what the recipe is read."""
    if data["dense_auc"] is None:
        return ""
    whole = f"a probe on all that the model knows there {data['dense_auc']:.2f} (1 is every pair right, 0.5 is chance)."
    said = f"Of the test texts, {whole}"
    if data["auc"] is not None:
        few = f"A probe on {len(data['reading'])} features separates the test texts with an AUC of {data['auc']:.2f}"
        said = f"{few}, {whole}"
    if data["reads"]:
        known = ", ".join(map(str, data["reads"]))
        said += f" Whether the recipe shows in a text is read with feature {known}, which tells the sides apart best."
    return said
