"""Labels of features: from their own tokens by rule, from a language model behind an endpoint, or from elsewhere.

A label is kept with its detection score: the balanced accuracy with which it tells, on unseen texts, where the feature
fires and where it does not (detection scoring, Paulo et al. 2410.13928). 0.5 is chance. A rule's label is judged by a
rule too, so that both work without network: the text has one of the words that the label names.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from trimtab.errors import InputError
from trimtab.index.records import Label
from trimtab.index.rules import choose, matches, pool, rule_label, windows
from trimtab.index.sample import rank
from trimtab.index.store import Index
from trimtab.index.tables import write_table
from trimtab.lm.texts import iter_contexts, iter_texts
from trimtab.sae.activations import Progress

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

RULE = "rule"
_CHUNK = 512


@dataclass(frozen=True)
class Snippet:
    """A piece of an unseen text, and whether the feature fires anywhere in it."""

    tokens: tuple[str, ...]
    fires: bool

    @property
    def text(self) -> str:
        """The piece as running text."""
        return "".join(self.tokens)


Judge = Callable[[str, Sequence[Snippet]], Sequence[bool]]
"""(label, snippets) -> whether the feature fires in each. It must look at nothing but the tokens."""


def by_words(label: str, snippets: Sequence[Snippet]) -> list[bool]:
    """The judge of rule labels: does the snippet have one of the words named before the arrow?"""
    return [matches(label, snippet.tokens) for snippet in snippets]


def held_out(
    model: Model,
    sae: SAE,
    texts: Sequence[str],
    features: Sequence[int],
    *,
    per_side: int = 10,
    width: int = 24,
    context: int = 128,
    contexts: int = 256,
    field: str = "text",
    limit: float | None = None,
    seed: int = 0,
) -> dict[int, list[Snippet]]:
    """For each feature up to `per_side` pieces of `width` tokens in which it fires and as many in which it does not.

    Pieces tile the first `contexts` contexts of `texts`, and are drawn at random with `seed`. `limit`: the sink limit
    of the index. A feature that fires in none of the pieces has no snippets.
    """
    from trimtab.index.events import events

    chosen = sae.features(features)
    stream = iter_contexts(
        iter_texts(texts, field=field),
        lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"],
        bos=model.bos_id,
        length=context,
    )
    window = list(islice(stream, contexts))
    if not window:
        raise InputError("The held-out texts hold nothing to read: every text is shorter than 16 tokens.")
    found, _ = events(model, sae, window, 0, limit)
    tile, pieces = _tiles(found.context, found.kept, width)
    pairs = np.unique(np.stack([found.feature, tile[found.token]]), axis=1)
    order = np.searchsorted(pairs[0], np.arange(sae.d_sae + 1))
    decoded: dict[int, tuple[str, ...]] = {}

    def tokens(piece: int) -> tuple[str, ...]:
        if piece not in decoded:
            decoded[piece] = tuple(str(model.tokenizer.decode([int(i)])) for i in found.ids[pieces[piece]])
        return decoded[piece]

    result: dict[int, list[Snippet]] = {}
    for feature in chosen:
        draw = random.Random(f"{seed} {feature}")
        where = pairs[1, order[feature] : order[feature + 1]].tolist()
        there = set(where)
        absent = [piece for piece in range(len(pieces)) if piece not in there]
        size = min(per_side, len(where), len(absent))
        result[feature] = [Snippet(tokens(p), True) for p in draw.sample(where, size)]
        result[feature] += [Snippet(tokens(p), False) for p in draw.sample(absent, size)]
    return result


def _tiles(context: np.ndarray, kept: np.ndarray, width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """The piece of every kept token, and the tokens of every piece."""
    place = np.flatnonzero(kept)
    nth = rank(context[place])
    number = np.zeros(len(kept), dtype=np.int64)
    new = np.diff(context[place] * len(kept) + nth // width, prepend=-1) != 0
    number[place] = np.cumsum(new) - 1
    return number, np.split(place, np.flatnonzero(new)[1:])


def detection(label: str, snippets: Sequence[Snippet], judge: Judge = by_words) -> float | None:
    """Balanced accuracy of `judge` with this label; None without snippets of both kinds (unscored is not 0.5)."""
    said = judge(label, snippets)
    sides = [[s == x.fires for s, x in zip(said, snippets, strict=True) if x.fires is side] for side in (True, False)]
    if not all(sides):
        return None
    return float(sum(sum(side) / len(side) for side in sides) / 2)


def shuffled(labels: Mapping[int, str], seed: int = 0) -> dict[int, str]:
    """The labels dealt out anew so that no feature keeps its own: the control of a detection score."""
    features = sorted(labels)
    if len(features) < 2:
        raise InputError("Labels of at least two features are needed to shuffle them.")
    order = features[:]
    random.Random(seed).shuffle(order)
    turned = {feature: order[(i + 1) % len(order)] for i, feature in enumerate(order)}
    return {feature: labels[turned[feature]] for feature in features}


def add_labels(index: Index, labels: Mapping[int, Label]) -> None:
    """Write labels into the index; those of the same feature and method are replaced, others stay."""
    import pyarrow as pa

    kept = {(f, label.method): label for f, many in index.labels().items() for label in many}
    kept |= {(index.check(f), label.method): label for f, label in labels.items()}
    rows = sorted(kept.items())
    write_table(
        index.folder / "labels.parquet",
        {
            "feature": pa.array([f for (f, _), _ in rows], pa.int32()),
            "label": pa.array([label.text for _, label in rows], pa.string()),
            "method": pa.array([label.method for _, label in rows], pa.string()),
            "score": pa.array([label.score for _, label in rows], pa.float64()),
        },
    )
    index.publish("labels.parquet")


def add_rule_labels(
    index: Index,
    features: Sequence[int] | None = None,
    snippets: Mapping[int, Sequence[Snippet]] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[int, Label]:
    """Label `features` (None: all) by rule, scored where there are `snippets` (of `held_out`), and store them."""
    chosen = list(range(index.features)) if features is None else [index.check(i) for i in features]
    found = {}
    others = pool(index)
    counts = {row["feature"]: row["count"] for row in index.query("select feature, count from features")}
    for start in range(0, len(chosen), _CHUNK):
        some = chosen[start : start + _CHUNK]
        words, lenses, examples = index.words(some), index.lenses(some), windows(index, some)
        for feature in some:
            mine = words.get(feature, ())
            named = choose(mine, counts[feature], index.tokens, examples[feature], others)
            text = rule_label(mine, lenses.get(feature), named)
            found[feature] = Label(text, RULE, detection(text, (snippets or {}).get(feature, ())))
        progress(Progress("labels", start + len(some), len(chosen), "features", 0.0))
    add_labels(index, found)
    return found
