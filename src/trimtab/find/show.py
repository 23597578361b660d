"""A finding as plain values: what the terminal, the page and JSON show."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trimtab.find.candidates import Candidate
from trimtab.find.examples import peak_words
from trimtab.find.find import Finding
from trimtab.find.pairs import audit

SHOWN_PAIRS = 4


def to_json(found: Finding) -> dict[str, Any]:
    """Everything but the tensors; of the texts those that examples and the first pairs need.

    features: a list for each SAE, in which a feature has its scores, the words it fires on, its strongest texts, its
    place on the map, the number of its cluster from 1 and its weight in the recipe (None: none).
    """
    repeated = audit(found.contrast)
    return {
        "format": "trimtab.finding/1",
        "contrast": {
            "name": found.contrast.name,
            "source": found.contrast.source,
            "digest": found.contrast.digest,
            "paired": found.contrast.paired,
            "positive": len(found.contrast.positive),
            "negative": len(found.contrast.negative),
            "duplicates": repeated.duplicates,
            "near_duplicates": repeated.near,
            "first": [found.contrast.positive[:SHOWN_PAIRS], found.contrast.negative[:SHOWN_PAIRS]],
        },
        "sizes": dict(zip(("train", "dev", "test"), found.sizes, strict=True)),
        "settings": found.settings.model_dump(mode="json"),
        "given": sorted(found.settings.model_fields_set),
        "model": found.model,
        "saes": found.saes,
        "positions": [
            {
                "site": str(p.site), "align": p.align, "slots": p.slots, "effect": p.effect, "q": p.q,
                "counts": p.counts, "heat": p.heat,
            }
            for p in found.positions
        ],
        "features": [_features(found, i) for i in range(len(found.saes))],
        "clusterings": [_clustering(found, i) for i in range(len(found.saes))],
        "candidates": [_candidate(one) for one in found.candidates],
        "chosen": found.chosen.name if found.chosen else None,
        "test": asdict(found.test) if found.test else None,
        "baseline": found.candidates[-1].name if found.candidates else None,
        "baseline_test": asdict(found.baseline_test) if found.baseline_test else None,
        "reading": found.reading,
        "auc": found.auc,
        "dense_auc": found.dense_auc,
        "recipe": found.recipe.digest if found.recipe else None,
        "reads": [index for some in found.recipe.about.reads.values() for index in some] if found.recipe else [],
    }  # fmt: skip


def _features(found: Finding, site: int) -> list[dict[str, Any]]:
    number = {
        index: i for i, one in enumerate(found.clusterings[site].clusters, start=1) for index in one.features
    }  # fmt: skip
    out = []
    for one in found.features[site]:
        weights = found.chosen.fit.weights.get(one.site, {}) if found.chosen else {}
        seen = found.examples[site].get(one.index, ())
        out.append(
            {
                **asdict(one), "site": str(one.site), "confirmed": one.confirmed, "cluster": number.get(one.index),
                "place": found.places[site][one.index], "weight": weights.get(one.index), "words": peak_words(seen),
                "examples": [asdict(text) for text in seen],
            }
        )  # fmt: skip
    return out


def _clustering(found: Finding, site: int) -> dict[str, Any]:
    made = found.clusterings[site]
    values = asdict(made)
    for one in values["clusters"]:
        texts = [text for index in one["features"] for text in found.examples[site].get(index, ())]
        one["words"] = peak_words(texts, 6)
    return {**values, "noise": made.noise}


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "features": one.features,
        "method": one.fit.method,
        "weights": {str(site): dict(weights) for site, weights in one.fit.weights.items()},
        "auc": one.auc,
        "dev": asdict(one.dev),
    }
