"""Is the chosen dose right? Strengths chosen on the model's own texts, measured on texts that nothing was chosen on.

    python bench/dose.py FOLDER --texts corpus.jsonl.gz [--stage kl|texts]   # resumable: one file a recipe in FOLDER
    python bench/dose.py FOLDER --out bench/results/dose.json --page docs/dose.md   # put together what is there

Forty recipes, drawn by a fixed seed: single live features of the SAE added (20, of them 8 with a negative sign) and
clamped (8), the four features with the largest effect size on a shipped contrast set (6), and the mean difference of
residuals of a contrast set (6, of them 3 turned round). `--stage kl`: the strength for each budget, and what it costs
on unseen texts: unsteered continuations of 20 openers of the steering benchmark and of 20 beginnings of corpus texts
(`openers` is both), and corpus texts themselves. `--stage texts`: the dose curve with written texts, and what `auto`
takes from it, at work on the openers.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from dose_page import BUDGETS, OPENER_KINDS, TEXTS, together, write_page
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
from trimtab.steer.dose import TEXTS as TEXTS_WRITTEN
from trimtab.steer.dose import ladder, measure_dose
from trimtab.steer.dose_texts import NEW_TOKENS, write_and_read
from trimtab.steer.generate import generate
from trimtab.steer.kl import PROMPT_TOKENS, beginning
from trimtab.steer.own import own_texts
from trimtab.steer.strength import TEXT_TOKENS, costs, factors_for_kl, scaled

CONCEPTS = ("food", "love", "money", "sea", "tense", "war")


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


def texts_stage(model: Model, sae: SAE, recipe: Recipe, openers: list[str], seed: int) -> dict[str, Any]:
    """The curve of one sign with texts, and texts from the unseen openers at the strength that `auto` takes from it.

    Costs are measured on as many texts as are written; the strengths of the curve are those of the product.
    """
    began = time.perf_counter()
    curve = measure_dose(model, recipe, ladder(model, recipe), own_texts(model)[:TEXTS_WRITTEN], sae=sae)
    seconds = time.perf_counter() - began
    factor = curve.safe_range[1] or curve.points[0].factor
    plain, steered = write_and_read(model, [None, scaled(recipe, factor)], openers, seed=seed)
    auto = {
        "factor": factor,
        "safe_on_the_curve": curve.safe_range[1] > 0,
        "nats_more": steered.nats - plain.nats,
        "repetition": steered.repetition,
        "repetition_unsteered": plain.repetition,
    }
    return {"seconds": seconds, "curve": curve.as_dict(), "auto": auto}


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
        unseen = unseen_texts(model, texts, 1 + number)
        if stage == "kl":
            done = kl_stage(model, recipe, unseen)
        else:
            openers = [text for kind in OPENER_KINDS for text in unseen[kind]]
            done = texts_stage(model, sae, recipe, openers, 1 + number)
        write_json(path, {"kind": kind, "what": what, "recipe": repr(recipe), **done, "about": about(model)})
        print(kind, what, json.dumps(done)[:200], flush=True)


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
