"""What is measured in the replay of origin A, stage by stage; every stage is plain values, kept in the run's folder.

All ways to steer are brought to the same cost, a mean KL of `KL` nats per token of neutral text, and judged by the
*shift*: how much likelier, per token, texts become that show the persona than texts that do not. Held-out texts only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from common import OPENINGS, Plain, kept

from trimtab.errors import InputError
from trimtab.evidence.lines import steered_lines
from trimtab.find.cluster import Clustering, cluster
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.effect import difference_interval, matched_strength, neutral, scaled, text_likelihoods
from trimtab.find.examples import examples, peak_words
from trimtab.find.fit import Fit, fit
from trimtab.find.pairs import ContrastSet, leaks
from trimtab.find.positions import find_positions
from trimtab.lm.model import Model
from trimtab.sae.sae import SAE
from trimtab.spec import Site
from trimtab.steer.dose import choose, measure_dose
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.recipe import Recipe

KL = 0.3
SPARSE = 0.1  # a feature that is on at more of the tokens than this does not fire sparsely
RARE = 0.01
SHARED = 3  # of the pairs' positive texts: features of fewer are left to no cluster
SCALARS = (0.05, 0.25, 1.0)  # length of the added vector, in lengths of the residual
SHOWN_AT = 0.25  # of these, where texts are shown
SIZES = (10, 30, 100, 300)
HUNDRED = 100  # statements a side of the recipe that is tried on texts
DRAWS = 4
READ = 16
SAMPLES = 4  # texts of each opening and arm of a verification

Vectors = dict[Site, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Study:
    """What is replayed on what. others: pairs to draw other tens from; held: pairs to measure on, of neither. `many`,
    `measured`: hundreds of texts to learn from, and others to measure on.
    """

    model: Model
    saes: tuple[SAE, ...]
    few: ContrastSet
    others: ContrastSet
    many: ContrastSet | None
    held: ContrastSet
    measured: ContrastSet | None
    questions: str | None
    skip: int
    seed: int
    folder: Path

    def settings(self) -> Plain:
        return {
            "model": self.model.name, "saes": [sae.name for sae in self.saes], "seed": self.seed, "kl": KL,
            "sites": [str(sae.site) for sae in self.saes], "few": self.few.digest, "others": len(self.others),
            "held": self.held.digest, "few_count": len(self.few), "held_count": len(self.held),
            "many": self.many and {
                "name": self.many.name, "positive": len(self.many.positive), "negative": len(self.many.negative),
                "digest": self.many.digest, "measured": self.measured and len(self.measured), "skip": self.skip,
            },
        }  # fmt: skip

    @cached_property
    def acts(self) -> list[Activations]:
        return collect(self.model, self.saes, self.few)

    @cached_property
    def known(self) -> object:
        return neutral(self.model)

    @cached_property
    def plain(self) -> list[torch.Tensor]:
        return [text_likelihoods(self.model, one) for one in self.sets]

    @cached_property
    def sets(self) -> list[ContrastSet]:
        return [self.held, *([self.measured] if self.measured else [])]


def parts(pairs: ContrastSet, few: int, seed: int) -> tuple[ContrastSet, ContrastSet, ContrastSet]:
    """Three parts of a set: a few pairs, the half that they are drawn from, and the other half without near copies."""
    half = pairs.take(len(pairs) // 2, seed)
    near = {text for _, text in leaks(half, pairs)} | {*half.positive, *half.negative}
    rest = [(p, n) for p, n in zip(pairs.positive, pairs.negative, strict=True) if p not in near and n not in near]
    held = replace(pairs, positive=tuple(p for p, _ in rest), negative=tuple(n for _, n in rest))
    return half.take(few, seed), half, held


def replay(study: Study) -> Plain:
    """All stages, each made once; `ways` and `verified` keep their parts one by one."""
    stages: dict[str, Callable[[Study], object]] = {
        "positions": positions, "features": features, "clusters": clusters, "scalar": scalar, "texts": texts,
        "asked": asked,
    }  # fmt: skip
    made = {name: kept(study.folder, name, lambda do=do: do(study)) for name, do in stages.items()}
    return {"settings": study.settings(), **made, "ways": ways_tried(study), "verified": verified(study)}


def positions(study: Study) -> Plain:
    found = find_positions(study.model, study.few, study.saes[0].site, "right", seed=study.seed)
    slots = [{"slot": s, "effect": e, "q": q} for s, e, q in zip(found.slots, found.effect, found.q, strict=True)]
    return {"slots": slots, "matter": found.matter, "strip": found.strip()}


def sparse(acts: Activations, sae: SAE, most: float = SPARSE, prompts: int = 1) -> list[int]:
    """Features on in at least so many of the positive texts, and at most at this share of ordinary tokens."""
    density = acts.density if sae.density is None else sae.density.cpu()
    fires = torch.from_numpy(np.asarray((acts.positive.latents > 0).sum(0)).ravel())
    return ((fires >= prompts) & (density <= most)).nonzero()[:, 0].tolist()


def features(study: Study) -> Plain:
    """How many features each prompt has, all, sparse and rare ones; the union over prompts; what several share."""
    acts, sae = study.acts[0], study.saes[0]
    on = acts.positive.latents > 0
    kinds = {"any": 1.0, "sparse": SPARSE, "rare": RARE}
    counts = {name: sparse(acts, sae, most) for name, most in kinds.items()}
    return {
        "union": {name: len(found) for name, found in counts.items()},
        "per_prompt": {
            name: np.asarray(on[:, found].sum(1)).ravel().astype(int).tolist() for name, found in counts.items()
        },
        "shared": len(sparse(acts, sae, prompts=SHARED)),
    }


def clustering(study: Study) -> Clustering:
    found = sparse(study.acts[0], study.saes[0], prompts=SHARED)
    return cluster(study.saes[0], found, study.acts[0], seed=study.seed)


def clusters(study: Study) -> Plain:
    made = clustering(study)
    shown = made.clusters[:8]
    seen = examples(study.model, study.saes[0], [i for one in shown for i in one.features], study.few)
    return {
        "clusters": [
            {"features": one.features, "cosine": one.cosine, "stability": one.stability,
             "words": peak_words([text for i in one.features for text in seen.get(i, ())], 6)}
            for one in shown
        ],
        "count": len(made.clusters), "clustered": sum(len(one.features) for one in made.clusters),
        "loose": len(made.loose), "stability": made.stability,
    }  # fmt: skip


def common_scalar(study: Study) -> tuple[Recipe, int]:
    """All clustered features by one scalar, so that the added vector is as long as the residual; and their number."""
    found = [i for one in clustering(study).clusters for i in one.features]
    found = found or sparse(study.acts[0], study.saes[0], prompts=SHARED) or sparse(
        study, study.acts[0], study.saes[0])  # fmt: skip
    rows = torch.nn.functional.normalize(study.saes[0].rows(found).float(), dim=-1)
    each = 1 / float(rows.sum(0).norm())
    return Recipe.add(study.saes[0], dict.fromkeys(found, each), unit="norm"), len(found)


def scalar(study: Study) -> Plain:
    recipe, count = common_scalar(study)
    factors = sorted(sign * s for s in SCALARS for sign in (-1, 1))
    curve = measure_dose(study.model, recipe, factors, NEUTRAL, sae=study.saes[0], texts=6, seed=study.seed)
    shifts = {str(f): _change(study, recipe * f) for f in factors}
    lines = steered_lines(study.model, study.saes[:1], recipe, OPENINGS, (-SHOWN_AT, 0.0, SHOWN_AT), seed=study.seed)
    return {
        "shown_at": SHOWN_AT, "count": count, "each": next(iter(recipe.features_of(study.saes[0]).values())),
        "points": [{**asdict(p), "state": curve.state(p), "shift": shifts[str(p.factor)]} for p in curve.points],
        "plain": asdict(curve.unsteered) if curve.unsteered else None,
        "lines": [one.as_dict() for one in lines],
    }  # fmt: skip


def _change(study: Study, recipe: Recipe) -> Plain:
    from trimtab.evidence.judges.likelihood import likelihood_change

    return asdict(likelihood_change(study.model, recipe, study.held))


def _few(
    study: Study, method: str = "per_prompt", *, sites: tuple[int, ...] = (0,), pool: Pool = "mean",
    most: float = SPARSE, prompts: int = 1, contrast: ContrastSet | None = None, matter: bool = False,
) -> Vectors:  # fmt: skip
    """Vectors by one method from 10 pairs, or from `contrast`; with their way of choosing features."""
    texts = contrast or study.few
    saes = [study.saes[i] for i in sites]
    if contrast is None and pool == "mean" and not matter:
        acts = [study.acts[i] for i in sites]
    else:
        found = find_positions(study.model, texts, saes[0].site, "right", seed=study.seed) if matter else None
        if found is not None and not found.matter:
            raise InputError("at no position do the sides of so few pairs differ beyond chance")
        where = found.chosen if found else None
        acts = collect(study.model, saes, texts, pool, chosen=where)
    chosen = [sparse(one, sae, most, prompts) for one, sae in zip(acts, saes, strict=True)]
    made: Fit = fit(method, acts, saes, chosen, paired=texts.paired)
    return dict(made.vectors)


def _random(study: Study) -> Vectors:
    draw = torch.Generator().manual_seed(study.seed)
    return {study.saes[0].site: torch.randn(study.model.d_model, generator=draw)}


def _shuffled(study: Study) -> ContrastSet:
    turn = [random.Random(f"shuffle {study.seed} {i}").random() < 0.5 for i in range(len(study.few))]
    sides = [(n, p) if t else (p, n) for t, p, n in zip(turn, study.few.positive, study.few.negative, strict=True)]
    return replace(study.few, positive=tuple(p for p, _ in sides), negative=tuple(n for _, n in sides))


def ways(study: Study) -> Iterator[tuple[str, str, Callable[[], Vectors]]]:
    """(question, name, how to make the vectors), in the order of the page; "theirs" is what all are compared with."""
    yield "base", "theirs", lambda: _few(study)
    yield "control", "a random direction", lambda: _random(study)
    yield "control", "theirs, labels shuffled", lambda: _few(study, contrast=_shuffled(study))
    yield "localised", "features on at most 1 % of tokens", lambda: _few(study, most=RARE)
    yield "localised", "the last token only", lambda: _few(study, pool="last")
    yield "localised", "only tokens where the sides differ", lambda: _few(study, pool="answer")
    yield "localised", "only positions that matter", lambda: _few(study, matter=True)
    if len(study.saes) > 1:
        yield "layers", "the second site alone", lambda: _few(study, sites=(1,))
        yield "layers", "both sites", lambda: _few(study, sites=(0, 1))
    for method in ("mean_difference", "ridge", "elastic_net", "non_negative", "logistic", "equal"):
        yield (
            "target",
            f"{method.replace('_', ' ')}, features of at least {SHARED} texts",
            lambda m=method: _few(study, m, prompts=SHARED),
        )
    yield "target", f"theirs, features of at least {SHARED} texts", lambda: _few(study, prompts=SHARED)
    yield "target", "no features: mean difference (CAA)", lambda: _few(study, "caa")
    yield "target", "no features: logistic probe", lambda: _few(study, "probe")
    for seed in range(1, DRAWS + 1):
        other = study.others.take(len(study.few), study.seed + seed)
        yield "pairs", f"{len(other)} other pairs, draw {seed}", lambda c=other: _few(study, contrast=c)
    yield "pairs", f"{len(study.others)} pairs", lambda: _few(study, contrast=study.others)
    if study.many is not None:
        for n in (n for n in SIZES if n <= len(study.many)):
            some = study.many.take(n, study.seed)
            yield "pairs", f"{n} statements a side", lambda c=some: _few(study, contrast=c)
            yield "pairs", f"{n} statements a side, no features (CAA)", lambda c=some: _few(study, "caa", contrast=c)


def ways_tried(study: Study) -> list[Plain]:
    """The shift of every way, kept one by one, and its difference from theirs."""
    tried: list[Plain] = []
    for question, name, make in ways(study):
        key = re.sub(r"\W+", "-", name)
        tried.append(kept(study.folder / "each", key, lambda q=question, n=name, m=make: _arm(study, q, n, m)))
    made = [one for one in tried if "refused" not in one]
    if not made or made[0]["question"] != "base":
        raise InputError("Their way gives no vector here: no sparse feature is on in the positive texts.")
    base = made[0]["changes"]
    for one in made:
        one["against"] = [
            _interval([a - b for a, b in zip(x["positive"], y["positive"], strict=True)],
                      [a - b for a, b in zip(x["negative"], y["negative"], strict=True)], held.paired)
            for x, y, held in zip(one["changes"], base, study.sets, strict=True)
        ]  # fmt: skip
    return [{key: value for key, value in one.items() if key != "changes"} for one in tried]


def _arm(study: Study, question: str, name: str, make: Callable[[], Vectors]) -> Plain:
    try:
        vectors = make()
    except InputError as error:  # no feature is left, say: the page names the reason
        return {"question": question, "name": name, "refused": str(error)}
    strength, reached = matched_strength(study.model, vectors, KL, known=study.known)  # type: ignore[arg-type]
    changes, shifts = [], []
    for held, plain in zip(study.sets, study.plain, strict=True):
        change = (text_likelihoods(study.model, held, scaled(vectors, strength)) - plain).double()
        n = len(held.positive)
        changes.append({"positive": change[:n].tolist(), "negative": change[n:].tolist()})
        shifts.append(_interval(changes[-1]["positive"], changes[-1]["negative"], held.paired))
    return {"question": question, "name": name, "kl": reached, "strength": strength, "shifts": shifts,
            "changes": changes}  # fmt: skip


def _interval(positive: list[float], negative: list[float], paired: bool) -> list[float]:
    pos, neg = np.array(positive), np.array(negative)
    low, high = difference_interval(pos, neg, paired)
    return [float(pos.mean() - neg.mean()), low, high]


REGRESSION = "their regression, 10 pairs"
HUNDREDS = f"their regression, {HUNDRED} statements a side"
SCALAR = "clustered features by a common scalar"


def names(study: Study) -> list[str]:
    """The three recipes that are tried on texts, fixed before any was written (two where there are no hundreds)."""
    return [REGRESSION, *([HUNDREDS] if study.many else []), SCALAR]


@cache
def recipe_of(study: Study, name: str) -> tuple[Recipe, dict[int, float]]:
    """A recipe at a cost of `KL`, and what to read in the texts: its strongest features with their weights."""
    if name == SCALAR:
        recipe, _ = common_scalar(study)
        chosen = choose(study.model, recipe, f"kl={KL}", NEUTRAL).recipe
        return chosen, dict.fromkeys(list(recipe.features_of(study.saes[0]))[:READ], 1.0)
    texts = study.few
    if name == HUNDREDS and study.many is not None:
        texts = study.many.take(min(len(study.many), HUNDRED), study.seed)
    acts, sae = collect(study.model, study.saes[:1], texts)[0], study.saes[0]
    made = fit("per_prompt", acts, sae, sparse(acts, sae), paired=texts.paired)
    strength, _ = matched_strength(study.model, dict(made.vectors), KL, known=study.known)  # type: ignore[arg-type]
    weights = made.weights[sae.site]
    lengths = dict(zip(weights, sae.rows(list(weights)).norm(dim=-1).tolist(), strict=True))
    best = sorted(weights, key=lambda i: -abs(weights[i]) * lengths[i])[:READ]
    vector = made.vectors[sae.site] * strength
    return Recipe.vector(vector, sae.site), {i: weights[i] for i in best if weights[i]}


def texts(study: Study) -> list[Plain]:
    made = []
    for name in names(study):
        recipe, _ = recipe_of(study, name)
        lines = steered_lines(study.model, study.saes[:1], recipe, OPENINGS, (-1.0, 0.0, 1.0), seed=study.seed)
        made.append({"name": name, "lines": [one.as_dict() for one in lines]})
    return made


def verified(study: Study) -> list[Plain]:
    return [
        kept(study.folder / "verdicts", re.sub(r"\W+", "-", name), lambda n=name: _verdict(study, n))
        for name in names(study)
    ]


def _verdict(study: Study, name: str) -> Plain:
    from trimtab.evidence.verify import verify

    recipe, read = recipe_of(study, name)
    evidence = verify(
        study.model, study.saes[0], recipe, OPENINGS, samples=SAMPLES, max_new_tokens=40, seed=study.seed, read=read,
        controls=("random", "sign-flipped"), question=name,
    )  # fmt: skip
    return {"name": name, "verdict": evidence.verdict, "reasons": evidence.reasons, "texts": SAMPLES * len(OPENINGS)}


def asked(study: Study) -> Plain | None:
    """Answers to questions that were not learned from, where the eval has questions."""
    if study.questions is None or study.measured is None:
        return None
    from trimtab.evidence.ask import ask
    from trimtab.evidence.questions import balanced, read_questions

    measured = {*study.measured.positive, *study.measured.negative}
    found = balanced([one for one in read_questions(study.questions) if one.statement in measured], 24)
    recipe, _ = recipe_of(study, HUNDREDS)
    out = ask(study.model, recipe, found, (-1.0, 1.0), seed=study.seed)
    return {"verdict": out.verdict, "questions": out.questions, "slope": _three(out.slope),
            "by_kind": {kind: _three(value) for kind, value in out.by_kind.items()},
            "mass": [(p.strength, p.mass) for p in out.points]}  # fmt: skip


def _three(value: object) -> list[float]:
    return [getattr(value, name) for name in ("mean", "low", "high")]
