"""What each way of finding does to the text: shifts of likelihood at a matched KL, for 12 concepts and 6 personas.

    python bench/find_methods.py [FOLDER] [--out bench/results/find_methods.jsonl] [--sets sea war]

FOLDER holds the sets of model-written evals (see find_persona.py); without it there are only the shipped concepts. One
line is written for each measurement, and a measurement that is there already is not made again, so a run can be
stopped at any time. `bench/find_page.py` makes docs/finding-measured.md of the lines.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import find_arms as arms
import torch
from find_regress import WAYS, against, per_prompt
from find_sets import Task, answers_of, by_effect, first, names, prepare, scored, top
from machine import about
from torch import Tensor

from trimtab import open_model, open_sae
from trimtab.find import effect
from trimtab.find.contrast import collect
from trimtab.find.effect import Neutral, likelihood_shift, neutral, text_likelihoods
from trimtab.find.gain import Curvature, curvature
from trimtab.find.pairs import ContrastSet
from trimtab.find.select import FeatureScore
from trimtab.lm.model import Model
from trimtab.lm.residual import read
from trimtab.sae.sae import SAE
from trimtab.spec import Site

SMALL, LARGE = 0.1, 0.5
BOTH = ("caa", "mean_difference", "one feature, by gain")
OTHER_SITES = (5, 11)
WHY = ("sea", "sentiment", "formality", "food")  # the concepts on which the causes of bad regressions are looked for
PAIRS = ((10, 0), (30, 0), (100, 0), (300, 0))


class Wanted(NamedTuple):
    """One measurement: its place in the table, the vectors, the costs, the texts, and what else is to be noted."""

    part: str
    arm: str
    vectors: arms.Vectors
    kls: tuple[float, ...] = (SMALL,)
    on: str = "test"
    note: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, eq=False)
class Lab:
    """What serves all sets."""

    model: Model
    saes: tuple[SAE, SAE]
    curves: tuple[Curvature, Curvature]
    known: Neutral
    out: Path
    quick: Model  # the same with its matrices in bfloat16

    def fast(self) -> torch.autocast:
        """Matrix products in bfloat16, which halves the time; sums and residuals stay in float32."""
        return _fast(self.model, self.quick is not self.model)

    def done(self) -> dict[str, dict[str, Any]]:
        """What has been measured, by key."""
        if not self.out.exists():
            return {}
        lines = [json.loads(line) for line in self.out.read_text(encoding="utf-8").splitlines()]
        return {key(line): line for line in lines}


def key(line: dict[str, Any]) -> str:
    """Which measurement a line is of."""
    return " | ".join(str(line[part]) for part in ("set", "part", "arm", "on", "kl"))


def wanted(lab: Lab, task: Task, folder: Path | None, done: dict[str, dict[str, Any]]) -> Iterator[Wanted]:
    """All measurements of one set; `done` fills up meanwhile, so the best cluster on dev is known when it is due."""
    sae = lab.saes[0]
    scores = [
        scored(lab.model, one, task, curve, i) for i, (one, curve) in enumerate(zip(lab.saes, lab.curves, strict=True))
    ]
    own = arms.methods(lab.model, task, sae, scores[0])
    counts = (("features", len(top(scores[0]))), ("confirmed", len(scores[0])))
    for name, v in own.items():
        yield Wanted("methods", name, v, (SMALL, LARGE) if name in BOTH else (SMALL,), note=counts)
    yield from (Wanted("controls", name, v) for name, v in arms.controls(task, sae).items())
    candidates = {name: own[name] for name in ("one feature, by gain", arms.OWN) if name in own}
    groups = arms.clusters(task, sae, scores[0])
    yield from (Wanted("choice of find", name, v, on="dev") for name, v in (candidates | groups).items())
    best = max(groups, key=lambda name: _on_dev(done, task, name), default=None)
    if best is not None:
        yield Wanted("clusters", best, groups[best])
    others = _dense_only(lab, task)
    yield from (Wanted("layers", name, v) for name, v in arms.layers(task, lab.saes, scores, others).items())
    yield from (Wanted("choices", name, v) for name, v in arms.choices(task, sae, scores[0]).items())
    yield from _pairs(task, sae)
    if task.name in WHY or task.name.startswith("persona: "):
        yield from _regression(lab, task, scores[0], own["caa"], folder)


def _on_dev(done: dict[str, dict[str, Any]], task: Task, arm: str) -> float:
    line = {"set": task.name, "part": "choice of find", "arm": arm, "on": "dev", "kl": SMALL}
    return float(done[key(line)].get("shift", -math.inf))


def _pairs(task: Task, sae: SAE) -> Iterator[Wanted]:
    total = len(task.train[0].positive.residual)
    for n, seed in PAIRS:
        if n <= total:
            for name, vectors in arms.few(task, sae, n, seed).items():
                yield Wanted("pairs", f"{name}, {n}, draw {seed}", vectors)


def _regression(
    lab: Lab, task: Task, scores: list[FeatureScore], caa: arms.Vectors, folder: Path | None
) -> Iterator[Wanted]:
    """Per-prompt least squares on 10 prompts as it was done, then with one thing changed at a time."""
    sae, acts, chosen = lab.saes[0], task.train[0], [one.index for one in top(scores)]
    ten = first(acts, 10, 0, task.paired)
    runs = {f"10 prompts, {name}": (ten, way, None) for name, way in WAYS.items()}
    runs["all prompts, per prompt"] = (acts, WAYS["per prompt"], None)
    runs["10 prompts, their 32 features of largest effect"] = (ten, WAYS["per prompt"], by_effect(ten))
    if chosen:
        runs["all prompts, the default 32 features"] = (acts, WAYS["per prompt"], chosen)
    if task.name.startswith("persona: "):
        answers = answers_of(task.name, folder, 60)
        pooled = collect(lab.model, sae, answers, "answer")[0]
        runs["10 answers, at the answer's token"] = (first(pooled, 10, 0, True), WAYS["per prompt"], None)
        runs["60 answers, at the answer's token"] = (pooled, WAYS["per prompt"], None)
        yield Wanted("regression", "60 answers, caa at the answer's token", {sae.site: pooled.delta})
    for name, (some, way, only) in runs.items():
        found = per_prompt(some, sae, way, some.pool == "answer" or task.paired, only)
        vectors = found.pop("vector")
        yield Wanted("regression", name, vectors, note=(*found.items(), ("cosine with caa", against(vectors, caa))))


def _dense_only(lab: Lab, task: Task) -> arms.Vectors:
    """Mean differences of residuals at the sites that have no SAE."""
    sites = [Site(layer=layer) for layer in OTHER_SITES if layer < lab.model.n_layers]
    total = dict.fromkeys(sites, 0.0)  # type: dict[Site, Any]
    for sign, texts in ((1, task.parts.train.positive), (-1, task.parts.train.negative)):
        for start in range(0, len(texts), 32):
            ids, mask = lab.model.pad([lab.model.encode(text) for text in texts[start : start + 32]], side="right")
            stream = read(lab.model, ids, sites, mask)
            use = (mask.bool() & (ids != lab.model.bos_id))[..., None].float()
            for site in sites:
                means = (stream[site].float() * use).sum(1) / use.sum(1)
                total[site] = total[site] + sign * means.sum(0).cpu() / len(texts)
    return total


def measure(lab: Lab, task: Task, one: Wanted, done: dict[str, dict[str, Any]]) -> None:
    """Measure at each cost, the next one from where the last one ended, and write a line each."""
    texts: ContrastSet = getattr(task.parts, one.on)
    base: Tensor = task.base[0 if one.on == "dev" else 1]
    near = _near(lab, one)
    for kl in one.kls:
        line: dict[str, Any] = {
            "set": task.name,
            "part": one.part,
            "arm": one.arm,
            "on": one.on,
            "kl": kl,
            **dict(one.note),
        }
        if key(line) in done:
            near = done[key(line)].get("strength", 0) * math.sqrt(one.kls[-1] / kl) or None
            continue
        began = time.perf_counter()
        if one.vectors and any(bool(v.any()) for v in one.vectors.values()):
            with lab.fast():
                shift = likelihood_shift(lab.quick, one.vectors, texts, kl=kl, base=base, known=lab.known, start=near)
            near = shift.strength * math.sqrt(one.kls[-1] / kl)
            line |= {**asdict(shift), "kl": kl, "reached": shift.kl}
        line["seconds"] = round(time.perf_counter() - began, 2)
        with lab.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        done[key(line)] = line


def _halved(model: Model) -> Model:
    """The model with the matrices of its linear layers in bfloat16, so that they are not cast at every pass."""
    for part in model.hf.modules():
        if isinstance(part, torch.nn.Linear):
            part.weight = torch.nn.Parameter(part.weight.detach().to(torch.bfloat16), requires_grad=False)
    return model


def _fast(model: Model, half: bool) -> torch.autocast:
    return torch.autocast(model.device.type, torch.bfloat16, enabled=half)


def _near(lab: Lab, one: Wanted) -> float | None:
    """The strength that the curvature at the site predicts for the first cost."""
    curves = [curve for curve in lab.curves if list(one.vectors) == [curve.site]]
    if not curves or not bool(one.vectors[curves[0].site].any()):
        return None
    return float(curves[0].strengths(one.vectors[curves[0].site][None], one.kls[0])[0])


def main() -> None:
    """Set by set; a set whose last line is there is passed over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", default="gemma-3-270m")
    parser.add_argument("--saes", nargs=2, default=["gemma-3-270m", "gemma-3-270m-block-9"])
    parser.add_argument("--out", type=Path, default=Path("bench/results/find_methods.jsonl"))
    parser.add_argument("--sets", nargs="+")
    parser.add_argument("--float32", action="store_true", help="all in float32, in twice the time")
    args = parser.parse_args()
    model, saes = open_model(args.model), tuple(open_sae(name) for name in args.saes)
    quick = model if args.float32 else _halved(open_model(args.model))
    with _fast(model, not args.float32):
        known = neutral(quick)
    lab = Lab(model, saes, tuple(curvature(model, sae.site) for sae in saes), known, args.out, quick)
    effect.TOKENS_PER_BATCH = 448  # fewer and longer passes than on a small machine
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.sets or names(args.folder):
        done = lab.done()
        end = {"set": name, "part": "end", "arm": "", "on": "", "kl": 0}
        if key(end) in done:
            continue
        began, before = time.perf_counter(), len(done)
        parts, train, dev = prepare(name, args.folder, model, saes)
        with lab.fast():
            base = text_likelihoods(quick, parts.dev), text_likelihoods(quick, parts.test)
        task = Task(name, parts, train, dev, base)
        for one in wanted(lab, task, args.folder, done):
            measure(lab, task, one, done)
        sizes = {k: [len(p.positive), len(p.negative)] for k, p in zip(task.parts._fields, task.parts, strict=True)}
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**end, "texts": sizes, "about": {**about(model), "float32": args.float32}}) + "\n")
        print(f"{name}: {len(done) - before} measured in {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
