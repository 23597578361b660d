"""A finding as plain values for JSON and as lines for a terminal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trimtab.find.effect import Shift
from trimtab.find.find import Candidate, Finding


def to_json(found: Finding) -> dict[str, Any]:
    """Everything but the tensors and the texts."""
    return {
        "contrast": {"name": found.contrast.name, "source": found.contrast.source, "digest": found.contrast.digest},
        "sizes": dict(zip(("train", "dev", "test"), found.sizes, strict=True)),
        "settings": found.settings.model_dump(mode="json"),
        "positions": [
            {"site": str(p.site), "align": p.align, "slots": p.slots, "effect": p.effect, "q": p.q, "counts": p.counts}
            for p in found.positions
        ],
        "features": [[{**asdict(one), "site": str(one.site)} for one in some] for some in found.features],
        "clusterings": [{**asdict(one), "noise": one.noise} for one in found.clusterings],
        "candidates": [_candidate(one) for one in found.candidates],
        "chosen": found.chosen.name if found.chosen else None,
        "test": asdict(found.test) if found.test else None,
        "reading": found.reading,
        "auc": found.auc,
        "dense_auc": found.dense_auc,
        "recipe": found.recipe.digest if found.recipe else None,
    }


def summary(found: Finding) -> list[str]:
    """The finding in lines of text."""
    lines = [
        f"{found.contrast.name}: {found.sizes[0]} training, {found.sizes[1]} dev and {found.sizes[2]} test "
        f"{'pairs' if found.contrast.paired else 'texts a side'}"
    ]
    for place in found.positions:
        lines.append(f"where they differ at {place.site}, aligned {place.align}: {place.strip()}")
    for scores, clustering in zip(found.features, found.clusterings, strict=True):
        lines += [
            f"  feature {one.index:6d}  effect {one.effect:5.2f}  AUC {one.auc:.2f} (held out {one.held_auc:.2f})  "
            f"fires on {one.coverage:.0%} / {one.other_coverage:.0%}  gain {_number(one.gain)}  "
            f"{' '.join(one.promoted[:5])}"
            for one in scores
        ]
        lines += [
            f"  cluster of {len(one.features)}: {list(one.features)}  cosine {one.cosine:.2f}  "
            f"stability {one.stability:.2f}  {' '.join(one.name)}"
            for one in clustering.clusters
        ]
    if found.chosen is None or found.test is None:
        return [*lines, "No feature of this SAE tells the two sides apart on held-out texts, so there is no recipe."]
    lines += [f"  {one.name}: {_shift(one.dev)} on dev" for one in found.candidates]
    why = "as asked" if found.settings.choice else "the largest shift on dev"
    lines.append(f"Chosen: {found.chosen.name} ({why}); {_shift(found.test)} on test texts that chose nothing.")
    lines.append(
        f"{len(found.reading)} features chosen to read the contrast together separate the test texts with an AUC of "
        f"{found.auc:.2f}, the whole residual {found.dense_auc:.2f}."
    )
    return lines


def _candidate(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "features": one.features,
        "method": one.fit.method,
        "weights": {str(site): dict(weights) for site, weights in one.fit.weights.items()},
        "auc": one.auc,
        "dev": asdict(one.dev),
    }


def _shift(one: Shift) -> str:
    return f"log-likelihood shift {one.shift:+.4f} [{one.low:+.4f}, {one.high:+.4f}] nats a token at KL {one.kl:.3f}"


def _number(value: float | None) -> str:
    return "unscored" if value is None else f"{value:+.4f}"
