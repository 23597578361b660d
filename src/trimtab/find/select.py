"""Which features a contrast switches on, and which of those move the output.

Each feature gets two scores that rarely coincide: an input score (does it fire on the positive texts and not on the
negative ones, on train and again on held-out texts?) and an output score (does adding it make the model say so?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trimtab.errors import InputError
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.output import output_scores
from trimtab.find.pairs import ContrastSet
from trimtab.find.stats import benjamini_hochberg, separation
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE

Order = Literal["input", "output", "both"]

SHARES = (0.5, 0.25, 0.25)
MIN_TEXTS = 4
ODD_FACTOR = 10.0
_CHUNK = 1024


@dataclass(frozen=True)
class FeatureScore:
    """One feature against one contrast. `sign` +1: it goes with the positive side, -1: with the negative one.

    effect: Cohen's d; auc: 0.5 is none, above 0.5 the positive side; p, q: two-sided, and after Benjamini-Hochberg over
    all features tested. coverage: share of the texts of its own side on which it fires. The `held_` numbers are of texts
    that chose nothing. density: share of ordinary tokens. output, promoted: see `OutputScore`. None: not measured.
    """

    index: int
    site: Site
    sign: int
    effect: float
    auc: float
    p: float
    q: float
    coverage: float
    other_coverage: float
    held_effect: float
    held_auc: float
    held_p: float
    density: float
    peak: float
    output: float | None = None
    promoted: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether held-out texts agree: the same side, one-sided p below 0.05."""
        return (self.held_auc - 0.5) * self.sign > 0 and self.held_p / 2 < 0.05


@dataclass(frozen=True)
class Filters:
    """Which features are considered. The first three do not look at labels, so they cost no significance.

    max_density: share of ordinary tokens above which a feature is too common to be about anything. min_coverage: share of
    a feature's own side that it must fire on. confirmed: whether held-out texts must agree. both_sides: also features of
    the negative side (with sign -1).
    """

    fdr: float = 0.05
    min_coverage: float = 0.1
    max_density: float = 0.1
    confirmed: bool = True
    both_sides: bool = False


def select(
    model: Model,
    sae: SAE,
    contrast: ContrastSet,
    held: ContrastSet | None = None,
    *,
    pool: Pool = "mean",
    limit: int = 32,
    order: Order = "both",
    filters: Filters | None = None,
    output: bool = True,
) -> list[FeatureScore]:
    """The features that tell the two sides of `contrast` apart, best first, at most `limit`; none is a valid answer.

    Without `held`, the set is split in half, a quarter and a quarter (seed 0): chosen on the first, confirmed on the
    second; the third is never looked at. order: `input` by the effect on train, `output` by the output score, `both` by
    the sum of the two ranks. `output=False` saves the forward passes of the output score (then order is `input`).
    """
    if order not in get_args(Order):
        raise InputError(f"Unknown order {order!r}. Valid: {', '.join(get_args(Order))}.")
    if held is None:
        contrast, held, _ = contrast.split(SHARES)
    train_acts, held_acts = (collect(model, sae, part, pool)[0] for part in (contrast, held))
    found = score(train_acts, held_acts, filters)
    if output:
        found = with_output(model, sae, found[: max(limit * 4, 64)])
    return ordered(found, order if output else "input")[:limit]


def score(train: Activations, held: Activations, filters: Filters | None = None) -> list[FeatureScore]:
    """Features that separate the sides of `train` (false discovery rate controlled) and of `held`, largest effect first."""
    rule = filters or Filters()
    columns = _candidates(train, rule)
    if not len(columns):
        return []
    kinds = {"train": train, "held": held}
    stats = {name: _separations(acts, columns) for name, acts in kinds.items()}
    effect, auc, p = stats["train"]
    q = benjamini_hochberg(p)
    sign = np.where(auc >= 0.5, 1, -1)
    fires = [np.asarray((side.latents[:, columns] > 0).mean(0)).ravel() for side in (train.positive, train.negative)]
    own, other = np.where(sign > 0, fires[0], fires[1]), np.where(sign > 0, fires[1], fires[0])
    keep = (q <= rule.fdr) & (own >= rule.min_coverage) & ((sign > 0) | rule.both_sides)
    result = []
    for i in np.flatnonzero(keep):
        index = int(columns[i])
        one = FeatureScore(
            index=index, site=train.site, sign=int(sign[i]), effect=float(effect[i]), auc=float(auc[i]), p=float(p[i]),
            q=float(q[i]), coverage=float(own[i]), other_coverage=float(other[i]),
            held_effect=float(stats["held"][0][i]), held_auc=float(stats["held"][1][i]), held_p=float(stats["held"][2][i]),
            density=float(train.density[index]), peak=float(train.peak[index]),
        )  # fmt: skip
        if one.confirmed or not rule.confirmed:
            result.append(one)
    return ordered(result, "input")


def with_output(model: Model, sae: SAE, scores: Sequence[FeatureScore]) -> list[FeatureScore]:
    """The same scores with the output score and the promoted tokens filled in."""
    outputs = output_scores(model, sae, [one.index for one in scores])
    return [replace(one, output=out.score, promoted=out.promoted) for one, out in zip(scores, outputs, strict=True)]


def ordered(scores: Sequence[FeatureScore], order: Order) -> list[FeatureScore]:
    """Sorted by effect, by output score, or by the sum of both ranks; ties by feature index."""
    by_input = sorted(scores, key=lambda one: (-abs(one.effect), one.index))
    if order == "input":
        return by_input
    by_output = sorted(scores, key=lambda one: (-(one.output or 0.0), one.index))
    if order == "output":
        return by_output
    rank = {id(one): i for i, one in enumerate(by_output)}
    total = {id(one): i + rank[id(one)] for i, one in enumerate(by_input)}
    return sorted(by_input, key=lambda one: (total[id(one)], one.index))


def _candidates(acts: Activations, rule: Filters) -> np.ndarray:
    """Features worth a test, judged without labels: not too dense, not of BOS or sinks, on at least a few texts."""
    texts = sum(np.asarray((side.latents > 0).sum(0)).ravel() for side in (acts.positive, acts.negative))
    density, peak, odd = (t.numpy() for t in (acts.density, acts.peak, acts.odd_peak))
    found: np.ndarray = np.flatnonzero((texts >= MIN_TEXTS) & (density <= rule.max_density) & (odd <= ODD_FACTOR * peak))
    return found


def _separations(acts: Activations, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(columns), _CHUNK):
        some = columns[start : start + _CHUNK]
        found = separation(acts.positive.latents[:, some].toarray(), acts.negative.latents[:, some].toarray())
        parts.append((found.effect, found.auc, found.p))
    effect, auc, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    return effect, auc, p
