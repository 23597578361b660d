"""A window of contexts -> everything that fires in it, as sparse (token, feature, value) triples.

BOS is not encoded at all; tokens whose residual is longer than `limit` (attention sinks) are dropped. The limit is
measured on the first window, as when activations are collected for training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.lm.residual import read
from trimtab.lm.texts import Context, batches
from trimtab.sae.firing import Fired, finder
from trimtab.sae.shards import SINK_FACTOR

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

TOKENS_PER_BATCH = 2048

Find = Callable[[Tensor], Fired]


@dataclass(frozen=True)
class Events:
    """What fired, in order of (token, feature). Token t of the window is one entry of `ids`, BOS included.

    `start` [contexts + 1]: where each context begins. `number`, `document`, `source` [contexts]: which one it is.
    """

    token: np.ndarray  # [n] int64, into ids
    feature: np.ndarray  # [n] int64
    value: np.ndarray  # [n] float32, > 0
    ids: np.ndarray  # [tokens] int64
    kept: np.ndarray  # [tokens] bool: neither BOS nor a sink
    start: np.ndarray  # [contexts + 1] int64
    number: np.ndarray  # [contexts] int64
    document: np.ndarray  # [contexts] int64
    source: tuple[str, ...]  # [contexts]

    @property
    def context(self) -> np.ndarray:
        """The context (position in `number`) of every token, [tokens]."""
        return np.repeat(np.arange(len(self.number)), np.diff(self.start))


def sink_limit(norms: np.ndarray) -> float:
    """The longest residual that is not a sink, from the lengths of many tokens."""
    return SINK_FACTOR * float(np.sort(norms)[max(1, round(0.999 * len(norms))) - 1])


@torch.no_grad()
def events(
    model: Model, sae: SAE, window: Sequence[Context], first: int, limit: float | None, find: Find | None = None
) -> tuple[Events, float]:
    """Everything that fires in `window`, whose contexts are numbered from `first`; and the sink limit used.

    `find` is `trimtab.sae.firing.finder(sae)`, made here unless it is given.
    Raises `InputError` when the model's residual is not finite.
    """
    find = find or finder(sae)
    lengths = np.array([len(context.ids) for context in window])
    start = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.concatenate([context.ids for context in window]).astype(np.int64)
    kept = np.ones(len(ids), dtype=bool) if model.bos_id is None else ids != model.bos_id
    norms = np.zeros(len(ids), dtype=np.float32)
    fired: list[list[np.ndarray]] = [[], [], []]  # tokens, features, values
    for rows, batch, mask in batches(window, tokens=TOKENS_PER_BATCH):
        h = read(model, batch, [sae.site], attention_mask=mask)[sae.site].float()
        place = np.concatenate([np.arange(start[row], start[row + 1]) for row in rows])
        norms[place] = h.norm(dim=-1)[mask.bool().to(h.device)].cpu().numpy()
        for column, part in zip(fired, _fired(sae, find, h, mask, place, kept), strict=True):
            column.append(part)
    if not np.isfinite(norms).all():
        where = int(np.searchsorted(start, np.flatnonzero(~np.isfinite(norms))[0], side="right")) - 1
        raise InputError(
            f"The residual of {model.name} at {sae.site} is not finite in document {window[where].document}; "
            "try --dtype float32."
        )
    if limit is None:
        limit = sink_limit(norms[kept])
    kept &= norms <= limit
    token, feature, value = map(np.concatenate, fired)
    order = np.argsort(token, kind="stable")  # batches come shortest first; features are in order within a token
    order = order[kept[token[order]]]
    found = Events(
        token[order],
        feature[order],
        value[order],
        ids,
        kept,
        start,
        np.arange(first, first + len(window)),
        np.array([context.document for context in window], dtype=np.int64),
        tuple(context.source for context in window),
    )
    return found, limit


def _fired(
    sae: SAE, find: Find, h: Tensor, mask: Tensor, place: np.ndarray, kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(token, feature, value) of what fires in one batch, h [rows, seq, d]."""
    real = mask.bool().to(h.device)
    if not sae.positionwise:  # activations depend on the whole text, which must come without padding
        f = torch.cat([sae.encode(row[keep].to(sae.device)) for row, keep in zip(h, real, strict=True)])
        fires = (f > 0).nonzero().unbind(1)
        found: Fired = (*fires, f[fires])  # type: ignore[assignment]  # unbind gives two
    else:
        use = kept[place]
        flat, place = h[real][torch.from_numpy(use).to(h.device)], place[use]
        found = find(flat.to(sae.device))
    token, feature, value = (column.cpu().numpy() for column in found)
    return place[token], feature, value
