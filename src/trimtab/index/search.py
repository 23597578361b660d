"""Find features: by words, by a text (what fires, and where), by a vector (nearest decoder rows)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtab.errors import InputError
from trimtab.index.records import Label
from trimtab.index.store import Index, check_belongs

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE


@dataclass(frozen=True)
class Hit:
    """A feature that matches, best first by `score`. `why`: where each word was found."""

    feature: int
    score: float
    why: str
    label: str


@dataclass(frozen=True)
class Firing:
    """A feature that fires in a text: its activations on every token (BOS left out), and the largest as a share of
    the largest in the index (None where it never fired there).
    """

    feature: int
    values: tuple[float, ...]
    share: float | None
    label: str


# What a word found there is worth. A token counts by its share of the feature's firing, a promoted one by its place.
_LABEL, _WORDS, _PROMOTED, _EXAMPLES = 2.0, 4.0, 1.0, 0.5


def find(index: Index, query: str, *, most: int = 20) -> list[Hit]:
    """Features whose labels, firing tokens, promoted tokens or examples have the words of `query`, best first.

    Words are compared without case and spaces; a firing or promoted token must equal the word, a label must contain it.
    A feature scores for every word of the query that it matches.
    """
    words = list(dict.fromkeys(query.lower().split()))
    if not words:
        raise InputError("Nothing to search for: give one or more words.")
    score: dict[int, float] = {}
    why: dict[int, list[str]] = {}
    for word in words:
        best: dict[int, tuple[float, str]] = {}
        for feature, worth, where in _matches(index, word):
            total, reasons = best.get(feature, (0.0, ""))
            best[feature] = (total + worth, f"{reasons}, {where}" if reasons else where)
        for feature, (worth, where) in best.items():
            score[feature] = score.get(feature, 0.0) + worth
            why.setdefault(feature, []).append(f"{word}: {where}")
    order = sorted(score, key=lambda f: (-len(why[f]), -score[f], f))[:most]
    labels = index.labels(order)
    return [Hit(f, score[f], "; ".join(why[f]), _first(labels, f)) for f in order]


def _matches(index: Index, word: str) -> list[tuple[int, float, str]]:
    found = [
        (row["feature"], _WORDS * row["share"], f"fires on it ({row['share']:.0%})")
        for row in index.query(
            "select feature, sum(words.count) / any_value(features.count) as share from words "
            "join tokens using (token) join features using (feature) where lower(trim(text)) = ? group by feature",
            [word],
        )
    ]
    if index.has("labels"):
        rows = index.query("select distinct feature from labels where contains(lower(label), ?)", [word])
        found += [(row["feature"], _LABEL, "in its label") for row in rows]
    if index.has("lens"):
        rows = index.query(
            "select feature, min(place) as place from (select feature, unnest(promoted) as text, "
            "generate_subscripts(promoted, 1) as place from lens) where lower(trim(text)) = ? group by feature",
            [word],
        )
        found += [(r["feature"], _PROMOTED / r["place"], f"promotes it (no. {r['place']})") for r in rows]
    ids = [row["token"] for row in index.query("select token from tokens where lower(trim(text)) = ?", [word])]
    if ids:
        rows = index.query(
            "select feature, avg(list_has_any(tokens, ?)::int) as share from examples "
            "group by feature having share > 0",
            [ids],
        )
        found += [(r["feature"], _EXAMPLES * r["share"], f"in {r['share']:.0%} of its examples") for r in rows]
    return found


def firing(
    model: Model, sae: SAE, text: str, index: Index | None = None, *, most: int = 20
) -> tuple[list[str], list[Firing]]:
    """The tokens of `text`, and the features that fire in it: strongest first, measured against their own maximum.

    Without an index the SAE's own maxima are used; without either, activations are compared as they are.
    """
    import torch

    from trimtab.lm.residual import read

    if index is not None:
        check_belongs(index, sae.fingerprint, sae.name)
    ids = torch.tensor([model.encode(text)], device=model.device)
    with torch.no_grad():
        f = sae.encode(read(model, ids, [sae.site])[sae.site][0].to(sae.device)).cpu()
    keep = ids[0].cpu() != (-1 if model.bos_id is None else model.bos_id)
    if not bool(keep.any()):
        raise InputError("The text is empty.")
    f = f[keep]
    top = f.amax(0)
    known = sae.max_act.cpu() if sae.max_act is not None else None
    if index is not None:
        known = torch.zeros(sae.d_sae)
        for row in index.query("from features select feature, max"):
            known[row["feature"]] = row["max"]
    share = top if known is None else torch.where(known > 0, top / known.clamp_min(1e-30), 0.0)
    chosen = [int(i) for i in share.argsort(descending=True, stable=True)[:most] if top[i] > 0]
    labels = index.labels(chosen) if index is not None else {}
    tokens = [str(model.tokenizer.decode([int(i)])) for i in ids[0].cpu()[keep]]
    return tokens, [
        Firing(
            i,
            tuple(f[:, i].tolist()),
            None if known is None or known[i] == 0 else float(share[i]),
            _first(labels, i),
        )
        for i in chosen
    ]


def nearest(sae: SAE, vector: Tensor, index: Index | None = None, *, most: int = 20) -> list[Hit]:
    """Features whose decoder rows have the largest cosine with `vector` [d]; the score is the cosine."""
    from torch.nn.functional import normalize

    from trimtab.index.lens import near

    if vector.shape != (sae.d_in,):
        raise InputError(
            f"The vector has shape {list(vector.shape)}; the SAE {sae.name!r} has rows of width {sae.d_in}."
        )
    if index is not None:
        check_belongs(index, sae.fingerprint, sae.name)
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        raise InputError("The vector must be finite and not zero.")
    unit = normalize(sae.W_dec, dim=-1)
    cosines, features = near(unit, normalize(vector.to(unit)[None], dim=-1), most)
    labels = index.labels(features[0].tolist()) if index is not None else {}
    return [
        Hit(f, c, "cosine", _first(labels, f)) for c, f in zip(cosines[0].tolist(), features[0].tolist(), strict=True)
    ]


def _first(labels: Mapping[int, Sequence[Label]], feature: int) -> str:
    """The best label, or nothing."""
    return next((label.text for label in labels.get(feature, ())), "")
