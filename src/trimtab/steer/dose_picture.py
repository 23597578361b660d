"""A dose curve as panels of `trimtab.report.curves`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trimtab.report.curves import Curve, Panel

if TYPE_CHECKING:
    from trimtab.steer.dose_curve import DoseCurve


def picture(curve: DoseCurve) -> list[list[Panel]]:
    """One column: cost, perplexity, repetition and response against the factor; what was not measured is left out."""
    x, plain = "times the strengths given", curve.unsteered
    points = curve.points
    cost = Curve("", tuple(p.factor for p in points), tuple(p.kl for p in points), tuple(p.kl_error for p in points))
    column = [Panel("cost", x, "KL, nats per token", (cost,))]
    if plain is None:
        return [column]
    for title, label, name, level in (
        ("perplexity", "times unsteered", "perplexity", 1.0),
        ("repetition", "share of 4-grams", "repetition", plain.repetition),
        ("response of the features", "residual units", "response", plain.response),
    ):
        values = [(p.factor, getattr(p, name)) for p in points if getattr(p, name) is not None]
        if values:
            line = Curve("", tuple(f for f, _ in values), tuple(v for _, v in values))
            column.append(Panel(title, x, label, (line,), level))
    return [column]
