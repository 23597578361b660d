"""Scores of generated texts, all read by the unsteered model, and the change of every feature, memory bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trimtab.evidence import plan, stats
from trimtab.evidence.trace import bos_length, log_likelihoods, residuals
from trimtab.evidence.values import Arm, Contrast, Moved, Sample, Selectivity, Target
from trimtab.lm.pieces import pieces

if TYPE_CHECKING:
    from trimtab.evidence.write import Progress
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE

ENCODE_TOKENS = 256
"""Tokens encoded at a time with all features: 256 x 16,384 float32 activations are 17 MB."""

TOP = 10


@dataclass(frozen=True)
class Text:
    """A generated text before it is scored. Tokens from `start` on were generated. `group` names what wrote it."""

    group: str
    prompt: int
    sample: int
    seed: int
    token_ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, eq=False)
class Reading:
    """What the unsteered model saw in the generated tokens of one text.

    `strengths` [tokens, features]: f_i * ||d_i|| of the features asked for; `likely` [tokens]: log-probabilities, nats.
    """

    text: Text
    strengths: Tensor
    likely: Tensor
    tokens: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Spread:
    """Over the texts of a group: mean and variance [d_sae], float64, of each feature's mean strength in a text."""

    mean: Tensor
    variance: Tensor


def read_texts(
    model: Model, sae: SAE, features: Sequence[int], texts: Sequence[Text], progress: Progress | None = None
) -> tuple[list[Reading], dict[str, Spread]]:
    """Every text read once, and per group what all features did in it; texts without generated tokens do not count.

    Activations of all features exist for `ENCODE_TOKENS` tokens at a time only.
    """
    norms = sae.W_dec.norm(dim=-1)
    sums = {text.group: torch.zeros(2, sae.d_sae, dtype=torch.float64) for text in texts}
    counts = dict.fromkeys(sums, 0)
    strengths: list[Tensor] = [torch.zeros(0, len(features))] * len(texts)
    for done, (place, h) in enumerate(residuals(model, sae.site, [text.token_ids for text in texts]), start=1):
        text = texts[place]
        generated = h[text.start - bos_length(model, text.token_ids) :].to(sae.device)
        found, total = [], torch.zeros(sae.d_sae, dtype=torch.float64)
        for chunk in torch.split(generated, ENCODE_TOKENS):
            f = sae.encode(chunk) * norms
            total += f.double().sum(0).cpu()
            found.append(f[:, list(features)].cpu())
        strengths[place] = torch.cat(found)
        if len(generated):
            mean = total / len(generated)
            sums[text.group] += torch.stack([mean, mean.square()])
            counts[text.group] += 1
        if progress is not None:
            progress("reading", done, len(texts))
    likely = _likely(model, texts, progress)
    readings = [
        Reading(text, s, ll, tuple(pieces(model, text.token_ids, text.start)))
        for text, s, ll in zip(texts, strengths, likely, strict=True)
    ]
    return readings, {group: _spread(total, counts[group]) for group, total in sums.items()}


def _spread(sums: Tensor, n: int) -> Spread:
    mean = sums[0] / max(1, n)
    return Spread(mean, (sums[1] / max(1, n) - mean.square()).clamp(min=0) * n / max(1, n - 1))


def _likely(model: Model, texts: Sequence[Text], progress: Progress | None) -> list[Tensor]:
    found = []
    step = 32
    for begin in range(0, len(texts), step):
        part = texts[begin : begin + step]
        found += log_likelihoods(model, [t.token_ids for t in part], [t.start for t in part])
        if progress is not None:
            progress("scoring", len(found), len(texts))
    return found


def sample_of(
    reading: Reading,
    features: Sequence[int],
    targets: Sequence[Target],
    arm: str,
    judged: Mapping[str, float | None] | None = None,
) -> Sample:
    """A reading with its scores; the columns of its strengths belong to `features`. `judged` is by judge's name."""
    text = reading.text
    generated = text.token_ids[text.start :]
    column = {feature: place for place, feature in enumerate(features)}
    rows: list[tuple[float, ...]] = []
    scores: dict[str, float | None] = {}
    for target in targets:
        total = reading.strengths[:, [column[f] for f in target.features]] @ torch.tensor(target.weights)
        rows.append(tuple(float(f"{value:.5g}") for value in total.tolist()))
        scores[f"firing:{target.name}"] = float((total > 0).double().mean()) if generated else None
        scores[f"mean:{target.name}"] = float(total.double().mean()) if generated else None
        scores[f"max:{target.name}"] = float(total.max()) if generated else None
    scores["log_likelihood"] = float(reading.likely.double().mean()) if len(reading.likely) else None
    scores["distinct_2"] = stats.distinct(generated, 2)
    scores["repetition"] = stats.repetition(generated, 4)
    scores |= {f"judge:{name}": score for name, score in (judged or {}).items()}
    return Sample(
        arm=arm,
        prompt=text.prompt,
        sample=text.sample,
        seed=text.seed,
        token_ids=text.token_ids,
        tokens=reading.tokens,
        strengths=tuple(rows),
        scores=scores,
    )


def is_share(key: str) -> bool:
    """Whether a score lies between 0 and 1."""
    return key.startswith("firing:") or key in ("distinct_2", "repetition")


def summarise(samples: Sequence[Sample], planned: Sequence[plan.Arm]) -> tuple[Arm, ...]:
    """The mean scores of each arm, with intervals."""
    arms = []
    for one in planned:
        mine = [s for s in samples if s.arm == one.name]
        prompts = [s.prompt for s in mine]
        scores = {
            key: stats.interval([s.scores[key] for s in mine], prompts, bounds=(0, 1) if is_share(key) else None)
            for key in mine[0].scores
        }
        label = plan.LABELS.get(one.name, one.name)
        arms.append(Arm(name=one.name, label=label, scores=scores, kl=one.kl, reached=one.reached, factor=one.factor))
    return tuple(arms)


def contrast(samples: Sequence[Sample], arm: str, against: str, targets: Sequence[Target]) -> Contrast:
    """The paired difference of two arms over the same prompts, sample numbers and seeds."""
    mine = {(s.prompt, s.sample): s for s in samples if s.arm == arm}
    other = {(s.prompt, s.sample): s for s in samples if s.arm == against}
    pairs = [(mine[place], other[place]) for place in mine]
    prompts = [a.prompt for a, _ in pairs]
    columns = {k: ([a.scores[k] for a, _ in pairs], [b.scores[k] for _, b in pairs]) for k in pairs[0][0].scores}
    firing = {f"firing:{target.name}": target.wanted for target in targets}
    return Contrast(
        arm=arm,
        against=against,
        scores={key: stats.paired(*column, prompts) for key, column in columns.items()},
        ratios={key: _ratio(*columns[key]) for key in firing},
        wrong_way={key: _wrong_way(*columns[key], prompts, wanted) for key, wanted in firing.items()},
    )


def _ratio(values: list[float | None], others: list[float | None]) -> float | None:
    """Ratio of the means over scored pairs; None where the second is 0: "from 0", which is no number."""
    scored = [(a, b) for a, b in zip(values, others, strict=True) if a is not None and b is not None]
    below = sum(b for _, b in scored)
    return sum(a for a, _ in scored) / below if below > 0 else None


def _wrong_way(
    values: list[float | None], others: list[float | None], prompts: Sequence[int], wanted: int
) -> float | None:
    """Share of the prompts whose sum of differences goes against `wanted`; those without a scored pair do not count."""
    sums: dict[int, float] = {}
    for a, b, prompt in zip(values, others, prompts, strict=True):
        if a is not None and b is not None:
            sums[prompt] = sums.get(prompt, 0.0) + (a - b) * wanted
    return sum(value < 0 for value in sums.values()) / len(sums) if sums else None


def selectivity(targets: Sequence[Target], steered: Spread, plain: Spread) -> tuple[Selectivity, ...]:
    """The rank of each feature that is read among all features; how it is computed stands at `Selectivity`."""
    change = steered.mean - plain.mean
    spread = (steered.variance + plain.variance) / 2
    fired = (steered.mean > 0) | (plain.mean > 0)
    usual = spread[fired].sqrt().median() if fired.any() else torch.tensor(1.0)
    standardised = change / (spread + usual.square()).sqrt().clamp(min=1e-12)
    out = []
    for target in targets:
        if len(target.features) != 1:
            continue
        feature = target.features[0]
        first = (standardised * target.wanted).topk(min(TOP, len(change))).indices.tolist()
        ranks = [1 + int((x * target.wanted > x[feature] * target.wanted).sum()) for x in (standardised, change)]
        out.append(
            Selectivity(
                target=target.name,
                feature=feature,
                rank=ranks[0],
                rank_by_change=ranks[1],
                of=len(change),
                change=float(change[feature]),
                standardised=float(standardised[feature]),
                top=tuple(
                    Moved(feature=i, change=float(change[i]), standardised=float(standardised[i])) for i in first
                ),
            )
        )
    return tuple(out)
