"""Is the chosen dose right? Strengths chosen on the model's own texts, measured on texts that nothing was chosen on.

    python bench/dose.py FOLDER --texts corpus.jsonl.gz [--stage kl|texts]   # resumable: one file a recipe in FOLDER
    python bench/dose.py FOLDER --out bench/results/dose.json --page docs/dose.md   # put together what is there

Forty recipes, drawn by a fixed seed: single live features of the SAE added (20, of them 8 with a negative sign) and
clamped (8), the four features with the largest effect size on a shipped contrast set (6), and the mean difference of
residuals of a contrast set (6, of them 3 turned round). `--stage kl`: the strength for each budget, and what it costs
on unseen texts: unsteered continuations of 20 openers of the steering benchmark and of 20 beginnings of corpus texts
(`openers` is both), and corpus texts themselves. `--stage texts`: the dose curve with written texts.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from machine import about

from trimtab import Recipe, open_model, open_sae
from trimtab.evidence.benchmark.prompts import DEV, TEST
from trimtab.files import write_json
from trimtab.find.select import select
from trimtab.find.sources import shipped
from trimtab.lm.model import Model
from trimtab.lm.reading import residuals
from trimtab.lm.texts import iter_texts
from trimtab.sae.sae import SAE
from trimtab.steer.dose import LADDER, ladder, measure_dose
from trimtab.steer.dose_texts import NEW_TOKENS
from trimtab.steer.generate import generate
from trimtab.steer.kl import PROMPT_TOKENS, beginning
from trimtab.steer.own import own_texts
from trimtab.steer.strength import PLACES, TEXT_TOKENS, costs, factors_for_kl

BUDGETS = (0.1, 0.5, 1.0)
CONCEPTS = ("food", "love", "money", "sea", "tense", "war")
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


def recipes(model: Model, sae: SAE) -> list[tuple[str, str]]:
    """(kind, what) of the forty, in an order in which every first part has all kinds; `build` makes them."""
    assert sae.density is not None
    assert sae.max_act is not None
    live = torch.nonzero((sae.density > 0) & (sae.max_act > 0))[:, 0].tolist()
    drawn = iter(random.Random(0).sample(live, 28))
    kinds = {
        "add": [f"{next(drawn)}:1" for _ in range(12)],
        "add, negative": [f"{next(drawn)}:-1" for _ in range(8)],
        "clamp": [f"{next(drawn)}:1" for _ in range(8)],
        "four features": list(CONCEPTS),
        "mean difference": [f"{name}:{sign}" for name, sign in zip(CONCEPTS, (1, -1) * 3, strict=True)],
    }
    placed = [(i / len(what), kind, one) for kind, what in kinds.items() for i, one in enumerate(what)]
    return [(kind, one) for _, kind, one in sorted(placed)]


def build(model: Model, sae: SAE, kind: str, what: str) -> Recipe:
    """The recipe at some strength; the dose decides on the strength."""
    name, _, number = what.partition(":")
    if kind == "four features":
        train, held, _ = shipped(what).split()
        found = select(model, sae, train, held, pool="max", limit=4, order="input", output=False)
        return Recipe.add(sae, {score.index: 1.0 for score in found})
    if kind == "mean difference":
        contrast = shipped(name)
        means = []
        for side in (contrast.positive, contrast.negative):
            read = residuals(model, sae.site, [model.encode(text) for text in side])
            means.append(torch.stack([h.float().mean(0) for _, h in read]).mean(0))
        return Recipe.vector(means[0] - means[1], sae.site, float(number))
    make = Recipe.clamp if kind == "clamp" else Recipe.add
    return make(sae, {int(name): float(number)})


def kl_stage(model: Model, recipe: Recipe, unseen: dict[str, list[str]]) -> dict[str, Any]:
    """Factors for the budgets, and their cost on the unseen texts of each kind: nats per token and its error."""
    began = time.perf_counter()
    chosen = factors_for_kl(model, recipe, BUDGETS)
    seconds = time.perf_counter() - began
    factors = [one.factor for one in chosen]
    found = {kind: costs(model, recipe, factors, texts) for kind, texts in unseen.items()}
    return {
        "seconds_to_choose": seconds,
        "doses": [
            {
                "budget": budget,
                "factor": one.factor,
                "error": one.error,
                "unseen": {kind: [cost[i].kl, cost[i].error] for kind, cost in found.items()},
            }
            for i, (budget, one) in enumerate(zip(BUDGETS, chosen, strict=True))
        ],
    }


def texts_stage(model: Model, sae: SAE, recipe: Recipe) -> dict[str, Any]:
    """The curve of one sign with texts."""
    began = time.perf_counter()
    curve = measure_dose(model, recipe, ladder(model, recipe), sae=sae)
    return {"seconds": time.perf_counter() - began, "curve": curve.as_dict()}


def unseen_texts(model: Model, corpus: list[str], seed: int) -> dict[str, list[str]]:
    """Texts by kind, drawn and written anew for every recipe, so that no one draw stands for all of them."""
    drawn = random.Random(seed).sample(corpus, len(corpus))
    long = list(islice((text for text in drawn if len(model.encode(text)) >= TEXT_TOKENS), 2 * TEXTS))
    begun = [model.decode(beginning(model, text, PROMPT_TOKENS)) for text in long[TEXTS:]]
    openers = {"benchmark openers": [*DEV, *TEST][:TEXTS], "corpus openers": begun}
    written = {
        kind: [one.prompt + one.text for one in generate(model, prompts, max_new_tokens=NEW_TOKENS, seed=seed)]
        for kind, prompts in openers.items()
    }
    return {**written, "corpus": long[:TEXTS]}


def run(folder: Path, stage: str, corpus: str, first: int) -> None:
    """Measure what is not there yet."""
    model, sae = open_model("gemma-3-270m"), open_sae("gemma-3-270m")
    texts = [text.text for text in iter_texts([corpus])]
    own_texts(model)  # so that the seconds to choose do not have them in
    for number, (kind, what) in enumerate(recipes(model, sae)[:first]):
        path = folder / f"{stage}-{kind}-{what}.json".replace(" ", "_").replace(":", "_")
        if path.exists():
            continue
        recipe = build(model, sae, kind, what)
        if stage == "kl":
            done = kl_stage(model, recipe, unseen_texts(model, texts, 1 + number))
        else:
            done = texts_stage(model, sae, recipe)
        write_json(path, {"kind": kind, "what": what, "recipe": repr(recipe), **done, "about": about(model)})
        print(kind, what, json.dumps(done)[:200], flush=True)


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
        f"a recipe took {found['seconds_to_choose']:.0f} seconds (median; one thread of a busy "
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
        lines += ["", *_by_cost(found["curves"])]
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


def write_page(path: Path, found: dict[str, Any]) -> None:
    """Put the measured part where the page has its mark, up to the end."""
    head, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    path.write_text(f"{head.rstrip()}\n\n{mark or MARK}\n\n{page(found)}", encoding="utf-8")


def main() -> None:
    """Parse and go."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", help="a corpus as `trimtab train` takes it")
    parser.add_argument("--stage", choices=("kl", "texts"), default="kl")
    parser.add_argument("--first", type=int, default=40, help="only so many of the recipes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--page", type=Path, help="the page whose measured part is written")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.texts:
        run(args.folder, args.stage, args.texts, args.first)
    if args.out:
        found = together(args.folder)
        write_json(args.out, found)
        if args.page:
            write_page(args.page, found)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
