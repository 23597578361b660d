"""Features in short, as the page shows them on cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtab.index.search import find
from trimtab.serve.limits import ApiError

if TYPE_CHECKING:
    from trimtab.index.records import Example, Feature
    from trimtab.sae.sae import SAE
    from trimtab.serve.service import Service

FIRST = "food roasting"
"""What the page has searched for when it opens: of the shipped SAE it finds feature 11330, the README's example."""
_AROUND = 14  # tokens before and after the strongest one in a card's examples


def make_beginning(service: Service) -> dict[str, Any]:
    """Features to show before anybody has asked for some: what a search for `FIRST` finds, else rare ones."""
    known = service.index
    if known is None:
        return {"words": FIRST, "cards": []}
    with service.index_lock:
        found = [(hit.feature, hit.why) for hit in find(known, FIRST, most=6)]
        if found:
            return {"words": FIRST, "cards": cards(service, found)}
        rows = known.query("select feature from features where count > 0 order by density, feature limit 6")
        return {"words": "", "cards": cards(service, [(row["feature"], "") for row in rows])}


def cards(service: Service, wanted: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
    """Short views of features: (number, why it was found). The caller holds the index's lock."""
    sae, known = first_sae(service), service.index
    size = sae.d_sae if sae is not None else known.features if known is not None else 0
    for number, _ in wanted:
        if number >= size:
            raise ApiError(404, f"There is no feature {number}; valid: 0 to {size - 1}.", param="features")
    found = known.several([number for number, _ in wanted]) if known is not None else []
    made = [_card(one) for one in found] or [{"feature": number} for number, _ in wanted]
    for card, (_, why) in zip(made, wanted, strict=True):
        card["why"] = why
        if sae is not None and sae.max_act is not None:
            card["max_act"] = float(sae.max_act[card["feature"]])
    return made


def _card(one: Feature) -> dict[str, Any]:
    label = one.labels[0] if one.labels else None
    return {
        "feature": one.index,
        "label": label.text if label else ", ".join(word.text.strip() for word in one.words[:4]),
        "score": label.score if label else None,
        "density": one.density,
        "max": one.max,
        "words": [word.text for word in one.words[:6]],
        "promoted": [text for text, _ in one.lens.promoted[:8]] if one.lens else [],
        "reads_writes": one.lens.reads_writes if one.lens and one.lens.output_score is not None else None,
        "histogram": one.histogram,
        "examples": [_example(example) for example in one.examples if example.kind == "top"][:3],
    }


def _example(one: Example) -> dict[str, Any]:
    part = slice(max(0, one.at - _AROUND), one.at + _AROUND)
    return {"tokens": one.tokens[part], "values": one.values[part]}


def first_sae(service: Service) -> SAE | None:
    """The SAE whose features are meant."""
    return next(iter(service.saes.values()), None)
