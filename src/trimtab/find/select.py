"""Which features a contrast switches on, and which of those move the output.

Each feature gets scores that rarely coincide: the input side (does it fire on the positive texts and not on the
negative ones, on train and again on held-out texts?) and two of the output side (does amplifying it make the model say
what its decoder row promotes? does adding it make held-out positive texts likelier than negative ones?).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from trimtab.errors import InputError
from trimtab.find.contrast import Activations, Pool, collect
from trimtab.find.gain import Curvature, curvature, gains, likelihood_gradient
from trimtab.find.output import output_scores
from trimtab.find.pairs import ContrastSet
from trimtab.find.stats import benjamini_hochberg, separation
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

Order = Literal["input", "output", "gain", "both"]

SHARES = (0.5, 0.25, 0.25)
MIN_TEXTS = 4
_CHUNK = 1024


@dataclass(frozen=True)
class FeatureScore:
    """One feature against one contrast. `sign` +1: it goes with the positive side, -1: with the negative one.

    effect: Cohen's d; auc: 0.5 is none, above 0.5 the positive side; p, q: two-sided, and after Benjamini-Hochberg over
    all features tested. coverage: share of the texts of its own side on which it fires. The `held_` numbers are of
    texts that chose nothing. density: share of ordinary tokens. output, promoted: see `OutputScore`. gain: likelihood
    of held-out positive over negative texts, in nats per token, that adding the feature brings at a KL of 0.1, to first
    order (see `gain`), on its own side. None: not measured.
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
    gain: float | None = None
    promoted: tuple[str, ...] = ()

    @property
    def confirmed(self) -> bool:
        """Whether held-out texts agree: the same side, one-sided p below 0.05."""
        return (self.held_auc - 0.5) * self.sign > 0 and self.held_p / 2 < 0.05


@dataclass(frozen=True)
class Filters:
    """Which features are considered. BOS, attention sinks and template tokens are never pooled, whatever stands here.

    max_density: share of ordinary tokens above which a feature is too common to be about anything. max_odd: largest
    activation at BOS and sinks, as a multiple of that at ordinary tokens (None: any; BOS is so long that features of
    SAEs trained without it fire there by accident). Neither looks at labels, so they cost no significance.
    min_coverage: share of a feature's own side that it must fire on. confirmed: whether held-out texts must agree.
    both_sides: also features of the negative side (with sign -1).
    """

    fdr: float = 0.05
    min_coverage: float = 0.1
    max_density: float = 0.1
    max_odd: float | None = None
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
    curve: Curvature | None = None,
) -> list[FeatureScore]:
    """The features that tell the two sides of `contrast` apart, best first, at most `limit`; none is a valid answer.

    Without `held`, the set is split in half, a quarter and a quarter (seed 0): chosen on the first, confirmed on the
    second; the third is never looked at. order: `input` by the effect on train, `output` by the output score, `gain` by
    the gain, `both` by the sum of the ranks by input and by gain. `output=False` saves both scores of the output side
    (then order is `input`). `curve` is `curvature(model, sae.site)` when it is known already.
    """
    if order not in get_args(Order):
        raise InputError(f"Unknown order {order!r}. Valid: {', '.join(get_args(Order))}.")
    if held is None:
        contrast, held, _ = contrast.split(SHARES)
    train_acts, held_acts = (collect(model, sae, part, pool)[0] for part in (contrast, held))
    found = score(with_density(train_acts, sae), held_acts, filters)
    if output:
        found = with_output(model, sae, found[: max(limit * 4, 64)], held, curve)
    return ordered(found, order if output else "input")[:limit]


def with_density(acts: Activations, sae: SAE) -> Activations:
    """The same with the SAE's own densities, where it has them: of far more text, not half of it about the concept."""
    return acts if sae.density is None else replace(acts, density=sae.density.cpu())


def score(train: Activations, held: Activations, filters: Filters | None = None) -> list[FeatureScore]:
    """Features that separate the sides of `train` (at the false discovery rate) and of `held`, largest effect first."""
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
            held_effect=float(stats["held"][0][i]), held_auc=float(stats["held"][1][i]),
            held_p=float(stats["held"][2][i]),
            density=float(train.density[index]), peak=float(train.peak[index]),
        )  # fmt: skip
        if one.confirmed or not rule.confirmed:
            result.append(one)
    return ordered(result, "input")


def with_output(
    model: Model, sae: SAE, scores: Sequence[FeatureScore], held: ContrastSet | None = None,
    curve: Curvature | None = None,
) -> list[FeatureScore]:  # fmt: skip
    """The same scores with output score and promoted tokens filled in and, where there are held-out texts, the gain."""
    if not scores:
        return []
    features = [one.index for one in scores]
    outputs = output_scores(model, sae, features)
    gained: list[float | None] = [None] * len(scores)
    if held is not None:
        found = gains(
            likelihood_gradient(model, sae.site, held), curve or curvature(model, sae.site), sae.rows(features).cpu()
        )
        gained = [one.sign * value for one, value in zip(scores, found.tolist(), strict=True)]
    return [
        replace(one, output=out.score, promoted=out.promoted, gain=gain)
        for one, out, gain in zip(scores, outputs, gained, strict=True)
    ]


def ordered(scores: Sequence[FeatureScore], order: Order) -> list[FeatureScore]:
    """Sorted by the effect on train, the output score, the gain, or the sum of the ranks by effect and by gain.

    Where no gain was measured, the output score stands in for it. Ties go by effect, then by feature index.
    """
    by_input = sorted(scores, key=lambda one: (-abs(one.effect), one.index))
    if order == "input":
        return by_input
    if order == "output" or any(one.gain is None for one in scores):
        by_effect = sorted(by_input, key=lambda one: -(one.output or 0.0))
    else:
        by_effect = sorted(by_input, key=lambda one: -(one.gain or 0.0))
    if order != "both":
        return by_effect
    rank = {one.index: i for i, one in enumerate(by_effect)}
    total = {one.index: i + rank[one.index] for i, one in enumerate(by_input)}
    return sorted(by_input, key=lambda one: (total[one.index], one.index))


def _candidates(acts: Activations, rule: Filters) -> np.ndarray:
    """Features worth a test, judged without labels."""
    texts = sum(np.asarray((side.latents > 0).sum(0)).ravel() for side in (acts.positive, acts.negative))
    density, peak, odd = (t.numpy() for t in (acts.density, acts.peak, acts.odd_peak))
    keep = (texts >= MIN_TEXTS) & (density <= rule.max_density)
    if rule.max_odd is not None:
        keep &= odd <= rule.max_odd * peak
    found: np.ndarray = np.flatnonzero(keep)
    return found


def _separations(acts: Activations, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for start in range(0, len(columns), _CHUNK):
        some = columns[start : start + _CHUNK]
        found = separation(acts.positive.latents[:, some].toarray(), acts.negative.latents[:, some].toarray())
        parts.append((found.effect, found.auc, found.p))
    effect, auc, p = (np.concatenate(column) for column in zip(*parts, strict=True))
    return effect, auc, p
