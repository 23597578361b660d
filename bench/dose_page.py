"""The parts of `bench/dose.py` put together, and the measured part of docs/dose.md."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from trimtab.steer.dose import LADDER
from trimtab.steer.dose_curve import COLLAPSE_NATS, COLLAPSE_REPETITION, SAFE_NATS, SAFE_REPETITION
from trimtab.steer.dose_texts import NEW_TOKENS
from trimtab.steer.strength import PLACES, TEXT_TOKENS

BUDGETS = (0.1, 0.5, 1.0)
TEXTS = 20
WITHIN = 0.2
OPENER_KINDS = ("benchmark openers", "corpus openers")
KINDS = {
    "openers": "openers, continued by the model",
    "benchmark openers": "of these, the benchmark's",
    "corpus openers": "of these, the corpus's",
    "corpus": "corpus texts",
}
MARK = "## Measured (written by bench/dose.py)"


def together(folder: Path) -> dict[str, Any]:
    """All parts, and the share of recipes whose unseen cost is within 20 % of the budget."""
    parts = [json.loads(path.read_text()) for path in sorted(folder.glob("kl-*.json"))]
    curves = [json.loads(path.read_text()) for path in sorted(folder.glob("texts-*.json"))]
    setting = parts[0]["about"]
    for part in (*parts, *curves):
        part.pop("about")
    return {
        "about": setting,
        "own_texts": {"tokens_read": TEXT_TOKENS, "places": PLACES},
        "unseen_texts": {kind: TEXTS * (1 + (kind == "openers")) for kind in KINDS},
        "seconds_to_choose": statistics.median(part["seconds_to_choose"] for part in parts),
        "shares": {kind: {f"{budget:g}": _share(parts, kind, budget) for budget in BUDGETS} for kind in KINDS},
        "recipes": parts,
        "curves": curves,
    }


def _ratio(dose: dict[str, Any], kind: str) -> float:
    """Cost on unseen texts over the budget."""
    of = OPENER_KINDS if kind == "openers" else (kind,)
    return statistics.mean(dose["unseen"][one][0] for one in of) / float(dose["budget"])


def _share(parts: list[dict[str, Any]], kind: str, budget: float) -> dict[str, float]:
    """How the recipes' unseen costs lie about one budget."""
    ratios = [_ratio(one, kind) for part in parts for one in part["doses"] if one["budget"] == budget]
    return {
        "recipes": len(ratios),
        "within": sum(abs(ratio - 1) <= WITHIN for ratio in ratios),
        "median_ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }


def page(found: dict[str, Any]) -> str:
    """The measured part of docs/dose.md."""
    kinds = list(dict.fromkeys(part["kind"] for part in found["recipes"]))
    texts = found["unseen_texts"]
    lines = [
        f"Gemma-3-270M, SAE at block 7, {len(found['recipes'])} of 40 recipes drawn by a fixed seed (`bench/dose.py`), "
        f"on unseen texts of up to {found['own_texts']['tokens_read']} tokens, drawn anew for every recipe: "
        f"{texts['openers']} openers, half of them of the steering benchmark and half beginnings of corpus texts, "
        f"continued by the unsteered model; and {texts['corpus']} texts of a mixed corpus. Choosing all three doses of "
        f"a recipe took {found['seconds_to_choose']:.0f} seconds (median; one or two threads of a busy "
        f"{found['about']['processor']}).",
        "",
        "| unseen texts | nats per token | within 20 % of it | unseen / budget: median | lowest | highest |",
        "|---|---|---|---|---|---|",
    ]
    for kind, shares in found["shares"].items():
        for budget, one in shares.items():
            within = f"{one['within']} of {one['recipes']} ({one['within'] / one['recipes']:.0%})"
            spread = f"{one['median_ratio']:.2f} | {one['lowest']:.2f} | {one['highest']:.2f}"
            lines.append(f"| {KINDS[kind]} | {budget} | {within} | {spread} |")
    lines += ["", "| kind of recipe | " + " | ".join(f"openers / {budget:g}: median" for budget in BUDGETS) + " |"]
    lines.append("|" + "---|" * (1 + len(BUDGETS)))
    for kind in kinds:
        of = [part for part in found["recipes"] if part["kind"] == kind]
        row = [_share(of, "openers", budget)["median_ratio"] for budget in BUDGETS]
        lines.append(f"| {kind} | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    if found["curves"]:
        lines += ["", *_by_cost(found["curves"]), "", *_auto(found["curves"])]
    return "\n".join(lines) + "\n"


def _by_cost(curves: list[dict[str, Any]]) -> list[str]:
    """What text is like at each step of the ladder, over the recipes that have a curve."""
    lines = [
        f"What text is like at each cost, over {len(curves)} of the recipes (medians over recipes):",
        "",
        "| about this cost | recipes | perplexity, times unsteered | repetition | safe | collapsed |",
        "|---|---|---|---|---|---|",
    ]
    for step in LADDER:
        near = [
            (part["curve"], point)
            for part in curves
            for point in part["curve"]["points"]
            if step / 2**0.5 <= point["kl"] < step * 2**0.5
        ]
        if near:
            ppl = statistics.median(point["perplexity"] for _, point in near)
            repeated = statistics.median(point["repetition"] for _, point in near)
            safe = sum(point["factor"] <= curve["safe_range"][1] for curve, point in near) / len(near)
            gone = sum(point["factor"] >= (curve["collapse"][1] or math.inf) for curve, point in near) / len(near)
            lines.append(f"| {step:g} | {len(near)} | {ppl:.2f} | {repeated:.0%} | {safe:.0%} | {gone:.0%} |")
    return lines


def _auto(curves: list[dict[str, Any]]) -> list[str]:
    """What `auto` chose, on the openers."""
    lines = [
        f"What `--dose auto` takes from these curves, on {2 * TEXTS} unseen openers ({NEW_TOKENS} tokens each):",
        "",
        "| recipe | KL | perplexity, times unsteered | repetition, unsteered | is |",
        "|---|---|---|---|---|",
    ]
    for part in curves:
        auto = part["auto"]
        kl = next(point["kl"] for point in part["curve"]["points"] if point["factor"] == auto["factor"])
        more = auto["repetition"] - auto["repetition_unsteered"]
        gone = auto["nats_more"] > COLLAPSE_NATS or auto["repetition"] > COLLAPSE_REPETITION
        safe = auto["nats_more"] <= SAFE_NATS and more <= SAFE_REPETITION
        state = "safe" if safe else "collapsed" if gone else "strained"
        lines.append(
            f"| {part['kind']}, {part['what']} | {kl:.2f} | {math.exp(auto['nats_more']):.2f} "
            f"| {auto['repetition']:.0%}, {auto['repetition_unsteered']:.0%} | {state} |"
        )
    return lines


def write_page(path: Path, found: dict[str, Any]) -> None:
    """Put the measured part where the page has its mark, up to the end."""
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    path.write_text(f"{head.rstrip()}\n\n{mark or MARK}\n\n{page(found)}", encoding="utf-8")
