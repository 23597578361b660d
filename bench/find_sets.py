"""The contrast sets of the table of methods, and what is known of each before anything is steered."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from find_persona import SEEN, split
from torch import Tensor

from trimtab.find.contrast import Activations, Side, collect
from trimtab.find.find import Settings
from trimtab.find.gain import Curvature, gains, likelihood_gradient
from trimtab.find.pairs import ContrastSet, Splits
from trimtab.find.rows import rows_of
from trimtab.find.select import SHARES, FeatureScore, Filters, Order, ordered, score, with_density
from trimtab.find.sources import from_rows, shipped, shipped_names
from trimtab.lm.model import Model
from trimtab.sae.sae import SAE

PERSONAS = (
    "agreeableness", "extraversion", "interest-in-math", "politically-liberal", "risk-seeking",
    "subscribes-to-Christianity",
)  # fmt: skip
MOST = 300
HELD = 16


@dataclass(frozen=True, eq=False)
class Task:
    """One set: texts (train, dev, test), activations of train and dev at the site of each SAE, and the unsteered
    log-likelihoods of dev and test.
    """

    name: str
    parts: Splits
    train: tuple[Activations, ...]
    dev: tuple[Activations, ...]
    base: tuple[Tensor, Tensor]

    @property
    def paired(self) -> bool:
        """Whether text i of one side belongs to text i of the other."""
        return self.parts.train.paired


def names(folder: Path | None) -> list[str]:
    """Concepts that are shipped, then personas where their folder is given."""
    return [*shipped_names(), *(f"persona: {name}" for name in PERSONAS if folder is not None)]


def texts_of(name: str, folder: Path | None) -> Splits:
    """Shipped: half of the pairs for training, a quarter each for dev and test. Personas: at most 300 statements a
    side for training, 16 a side for dev and for test, both of statements that the SAE has not seen.
    """
    if not name.startswith("persona: "):
        return shipped(name).split(SHARES)
    parts = split(_file(name, folder), dev=80, test=80)
    return Splits(_first(parts.train, MOST), _first(parts.dev, HELD), _first(parts.test, HELD))


def answers_of(name: str, folder: Path | None, most: int) -> ContrastSet:
    """The questions of a persona's first statements, each with the matching and with the other answer."""
    rows = rows_of(_file(name, folder))[:SEEN]
    return from_rows(random.Random("answers 0").sample(rows, most), name, view="answer")


def prepare(
    name: str, folder: Path | None, model: Model, saes: Sequence[SAE]
) -> tuple[Splits, tuple[Activations, ...], tuple[Activations, ...]]:
    """Read and split a set, and collect the activations of train and dev at the site of each SAE."""
    parts = texts_of(name, folder)
    train, dev = (tuple(collect(model, saes, part)) for part in parts[:2])
    return parts, train, dev


def scored(model: Model, sae: SAE, task: Task, curve: Curvature, site: int = 0) -> list[FeatureScore]:
    """All features that the set confirms, dense ones too, with their gain on dev."""
    found = score(with_density(task.train[site], sae), task.dev[site], Filters(max_density=1.0))
    if not found:
        return []
    rows = sae.rows([one.index for one in found])
    gained = gains(likelihood_gradient(model, sae.site, task.parts.dev), curve, rows).tolist()
    return [replace(one, gain=one.sign * gain) for one, gain in zip(found, gained, strict=True)]


def top(scores: Sequence[FeatureScore], density: float | None = None, order: Order | None = None) -> list[FeatureScore]:
    """The first 32 as `find` takes them: the 128 largest effects that are rare enough, in order."""
    how = Settings()
    rare = [one for one in scores if one.density <= (how.max_density if density is None else density)]
    return ordered(ordered(rare, "input")[: 4 * how.limit], order or how.order)[: how.limit]


def by_effect(train: Activations, limit: int = 32) -> list[int]:
    """The features of largest effect on the positive side, whatever their significance: all that few texts can say."""
    rule = Filters(fdr=1.0, confirmed=False, min_coverage=0.1)
    return [one.index for one in score(train, train, rule)[:limit]]


def first(acts: Activations, n: int, seed: int = 0, paired: bool = False) -> Activations:
    """Activations of `n` texts a side, drawn at random; the same rows on both sides where they are pairs."""
    sides = [acts.positive, acts.negative]
    rows = [_rows(len(side.residual), n, seed + (0 if paired else i)) for i, side in enumerate(sides)]
    made = [Side(side.residual[mine], side.latents[mine]) for side, mine in zip(sides, rows, strict=True)]
    return replace(acts, positive=made[0], negative=made[1])


def shuffled(acts: Activations, seed: int = 0) -> Activations:
    """The same texts with their sides drawn at random."""
    from scipy.sparse import vstack

    n = len(acts.positive.residual)
    residual = torch.cat([acts.positive.residual, acts.negative.residual])
    latents = vstack([acts.positive.latents, acts.negative.latents]).tocsr()
    rows = _rows(len(residual), len(residual), seed)
    made = [Side(residual[mine], latents[mine]) for mine in (rows[:n], rows[n:])]
    return replace(acts, positive=made[0], negative=made[1])


def _rows(total: int, n: int, seed: int) -> list[int]:
    return random.Random(f"rows {seed}").sample(range(total), min(n, total))


def _first(contrast: ContrastSet, n: int) -> ContrastSet:
    return contrast.take(min(n, len(contrast)))


def _file(name: str, folder: Path | None) -> Path:
    plain = name.removeprefix("persona: ")
    found = [] if folder is None else [*folder.glob(f"{plain}.jsonl"), *folder.glob(f"{plain}.jsonl.gz")]
    if not found:
        raise SystemExit(f"{folder} has no {plain}.jsonl or {plain}.jsonl.gz.")
    return found[0]
