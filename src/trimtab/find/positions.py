"""Where in a text the two sides of a contrast differ: the residual's delta by token position, against permuted labels.

A position is a *slot*: the k-th token from the left, the k-th from the right, or, for pairs, the place relative to the
part in which the two texts of a pair differ (slot 0 is that part, slots 1, 2, ... the tokens after it).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.find.contrast import SINK_FACTOR, batches, tokenise
from trimtab.find.pairs import ContrastSet
from trimtab.find.stats import benjamini_hochberg
from trimtab.lm.residual import read
from trimtab.spec import Site

if TYPE_CHECKING:
    from trimtab.lm.model import Model

Align = Literal["left", "right", "diff"]

BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Positions:
    """One number per slot. effect: length of the mean delta over its mean length under permuted labels (1 is nothing);
    every dimension of the residual counts by its own deviation, since a few huge ones would drown the others.

    p, q: share of permutations that reach the effect, and after Benjamini-Hochberg. counts: texts that have the slot.
    matter: the slots whose q is at most 0.05. `chosen`: for every text (positives first), which tokens lie in those.
    """

    site: Site
    align: Align
    slots: tuple[int, ...]
    effect: tuple[float, ...]
    p: tuple[float, ...]
    q: tuple[float, ...]
    counts: tuple[int, ...]
    chosen: tuple[tuple[bool, ...], ...]

    @property
    def matter(self) -> tuple[int, ...]:
        """Slots whose effect is not chance, at a false discovery rate of 5 %."""
        return tuple(slot for slot, q in zip(self.slots, self.q, strict=True) if q <= 0.05)

    @property
    def heat(self) -> tuple[float, ...]:
        """What the effects exceed chance by, the largest 1; 0 where they do not matter."""
        top = max([*self.effect, 1.0]) - 1
        return tuple(
            max((e - 1) / top, 0.0) if q <= 0.05 and top > 0 else 0.0 for e, q in zip(self.effect, self.q, strict=True)
        )

    def strip(self) -> str:
        """The heat as one line of block elements, the largest full height; slots that do not matter are dots."""
        return "".join(BLOCKS[min(int(8 * heat), 7)] if heat > 0 else "·" for heat in self.heat)


@torch.no_grad()
def find_positions(
    model: Model, contrast: ContrastSet, site: Site, align: Align = "right", *, slots: int = 24, draws: int = 199,
    seed: int = 0,
) -> Positions:  # fmt: skip
    """Which token positions carry the contrast at `site`.

    Labels are permuted within pairs, or over all texts where there are none. Only running sums are kept: memory is
    2 x (draws + 1) x slots x d floats, whatever the number of texts.
    """
    ids = tokenise(model, contrast)
    where = slots_of(ids, contrast, align, model.bos_id)
    names = _common_slots(where, contrast, slots)
    place = {slot: i for i, slot in enumerate(names)}
    labels = _labels(contrast, draws, seed)
    sums = torch.zeros(2, draws + 1, len(names), model.d_model)
    counts = torch.zeros(2, draws + 1, len(names))
    moments = torch.zeros(2, model.d_model, dtype=torch.float64)
    for batch in batches(ids):
        h = read(model, batch.ids, [site], batch.mask)[site].float().cpu()
        for i, row in enumerate(batch.rows):
            pooled, has = _by_slot(h[i], _without_sinks(h[i], where[row]), place)
            moments += torch.stack([pooled.sum(0), pooled.square().sum(0)])
            for side in (0, 1):
                mine = labels[:, row] == side
                sums[side, mine] += pooled
                counts[side, mine] += has
    delta = sums[0] / counts[0].clamp(min=1)[..., None] - sums[1] / counts[1].clamp(min=1)[..., None]
    mean, square = moments / (counts[0, 0] + counts[1, 0]).sum()
    deviation = (square - mean.square()).clamp(min=0).sqrt().float()
    length = (delta / deviation.clamp(min=1e-6 * float(deviation.max()))).norm(dim=-1).numpy()
    observed, null = length[0], length[1:]
    p = (1 + (null >= observed - 1e-9).sum(0)) / (draws + 1)
    p = np.where(observed > 1e-6 * max(float(observed.max()), 1e-12), p, 1.0)
    q = benjamini_hochberg(p)
    effect = observed / np.maximum(null.mean(0), 1e-12)
    good = {slot for slot, value in zip(names, q, strict=True) if value <= 0.05}
    return Positions(
        site=site, align=align, slots=tuple(names), effect=tuple(map(float, effect)), p=tuple(map(float, p)),
        q=tuple(map(float, q)), counts=tuple(int(c) for c in (counts[0, 0] + counts[1, 0])),
        chosen=tuple(tuple(slot in good for slot in row) for row in where),
    )  # fmt: skip


def slots_of(
    ids: Sequence[Sequence[int]], contrast: ContrastSet, align: Align, bos: int | None
) -> list[list[int | None]]:
    """The slot of every token of every text, positives first; None for BOS and, in `diff`, for the shared start."""
    if align not in get_args(Align):
        raise InputError(f"Unknown alignment {align!r}. Valid: {', '.join(get_args(Align))}.")
    if align == "left":
        return [[None if token == bos else i for i, token in enumerate(row)] for row in ids]
    if align == "right":
        return [[None if token == bos else i - len(row) for i, token in enumerate(row)] for row in ids]
    if not contrast.paired:
        raise InputError("Alignment by diff needs pairs; this set is two free lists. Valid for it: left, right.")
    n = len(contrast.positive)
    pairs = [diff_slots(ids[i], ids[n + i]) for i in range(n)]
    return [pair[0] for pair in pairs] + [pair[1] for pair in pairs]


def diff_slots(first: Sequence[int], second: Sequence[int]) -> tuple[list[int | None], list[int | None]]:
    """Slots of a pair by the diff of its tokens: all tokens that differ are slot 0, shared tokens after the first
    difference count 1, 2, ... in order, and those before it have none, since there the residuals are equal.
    """
    result: tuple[list[int | None], list[int | None]] = ([None] * len(first), [None] * len(second))
    number, begun = 0, False
    for kind, a0, a1, b0, b1 in difflib.SequenceMatcher(None, first, second, autojunk=False).get_opcodes():
        if kind != "equal":
            begun = True
            result[0][a0:a1] = [0] * (a1 - a0)
            result[1][b0:b1] = [0] * (b1 - b0)
        elif begun:
            for a, b in zip(range(a0, a1), range(b0, b1), strict=True):
                number += 1
                result[0][a] = result[1][b] = number
    return result


def _common_slots(where: list[list[int | None]], contrast: ContrastSet, most: int) -> list[int]:
    """Slots that at least a quarter of either side has, at most `most` (those that most texts have), in order."""
    n = len(contrast.positive)
    held = [[{s for s in row if s is not None} for row in part] for part in (where[:n], where[n:])]
    every = set().union(*held[0], *held[1])
    share = {slot: min(sum(slot in row for row in side) / len(side) for side in held) for slot in every}
    usable = sorted((s for s in every if share[s] >= 0.25), key=lambda s: (-share[s], abs(s)))[:most]
    if not usable:
        raise InputError(f"{contrast.name}: no token position is shared by enough texts to compare the two sides.")
    return sorted(usable)


def _labels(contrast: ContrastSet, draws: int, seed: int) -> np.ndarray:
    """Side (0 positive, 1 negative) of every text, [draws + 1, texts]: the true labels, then permuted ones."""
    rng = np.random.default_rng(seed)
    n, m = len(contrast.positive), len(contrast.negative)
    true = np.repeat([0, 1], [n, m])
    if contrast.paired:
        flips = rng.integers(0, 2, (draws, n))
        return np.concatenate([true[None], np.concatenate([flips, 1 - flips], axis=1)])
    return np.stack([true, *(rng.permutation(true) for _ in range(draws))])


def _without_sinks(h: Tensor, slots: list[int | None]) -> list[int | None]:
    """The same slots but for attention sinks, tokens of a residual many times as long as that of the others."""
    norms = h[: len(slots)].norm(dim=-1)
    plain = torch.tensor([slot is not None for slot in slots])
    limit = SINK_FACTOR * norms[plain].median() if bool(plain.any()) else 0.0
    return [slot if norm <= limit else None for slot, norm in zip(slots, norms, strict=True)]


def _by_slot(h: Tensor, slots: list[int | None], place: dict[int, int]) -> tuple[Tensor, Tensor]:
    """Residuals [seq, d] averaged within slots: [slots, d], and which slots there are, [slots]."""
    pooled, count = torch.zeros(len(place), h.shape[-1]), torch.zeros(len(place))
    known = [(i, place[slot]) for i, slot in enumerate(slots) if slot is not None and slot in place]
    if known:
        rows, targets = (torch.tensor(column) for column in zip(*known, strict=True))
        pooled.index_add_(0, targets, h[rows])
        count.index_add_(0, targets, torch.ones(len(rows)))
    return pooled / count.clamp(min=1)[:, None], (count > 0).float()
