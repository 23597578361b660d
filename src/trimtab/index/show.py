"""A feature in the terminal: its label, numbers, histogram, tokens, and examples with their firings highlighted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from trimtab.index.records import Example, Feature
from trimtab.report.blocks import BLOCKS, narrow, visible

_HEADINGS = {"top": "Strongest", "random": "Random firings"}


def show(feature: Feature, examples: int = 5) -> Iterator[RenderableType]:
    """Everything about `feature`, with up to `examples` examples of each kind and two of each band."""
    yield Text(f"Feature {feature.index}", style="bold")
    for label in feature.labels:
        score = "unscored" if label.score is None else f"detection {label.score:.2f}"
        yield Text.assemble("  ", (visible(label.text), "bold"), (f"  {label.method}, {score}", "dim"))
    for line in facts(feature):
        yield Text(f"  {line}")
    if feature.histogram:
        yield histogram(feature)
    for heading, group in groups(feature.examples):
        yield Text(f"\n{heading}", style="bold")
        for one in group[: examples if one_kind(group) != "band" else 2]:
            yield Text.assemble((f"  {one.value:>9.4g}  ", "dim"), narrow(one.tokens, one.values, feature.max))


def facts(feature: Feature) -> list[str]:
    """The numbers and tokens as sentences, one a line."""
    mean = "" if feature.mean is None else f"mean {feature.mean:.4g}, "
    lines = [f"fires on {100 * feature.density:.3g}% of tokens ({feature.count:,} times), {mean}max {feature.max:.4g}"]
    if feature.words:
        shown = ", ".join(
            f"“{visible(w.text)}” {w.count:,} ({w.count / max(1, w.seen):.0%})" for w in feature.words[:8]
        )
        note = "" if feature.words_error == 0 else f"; each up to {feature.words_error:,} more"
        lines.append(f"fires on (and how often of the times it was read): {shown}{note}")
    if feature.lens is not None:
        lines.append(f"promotes: {_tokens(feature.lens.promoted)}")
        lines.append(f"suppresses: {_tokens(feature.lens.suppressed)}")
        score = feature.lens.output_score
        lines.append("output score: " + ("unscored" if score is None else f"{score:.4f} ({feature.lens.reads_writes})"))
        near = ", ".join(f"{other} ({cosine:.2f})" for other, cosine in feature.lens.neighbours[:6])
        lines.append(f"nearest decoder rows: {near}")
    if feature.partners:
        fires = ", ".join(f"{other} ({n / max(1, feature.count):.0%})" for other, n in feature.partners[:6])
        lines.append(f"fires together with: {fires}")
    if len(feature.sources) > 1:
        shares = ", ".join(f"{visible(name)} {n / max(1, feature.count):.0%}" for name, n in feature.sources[:6])
        lines.append(f"sources: {shares}")
    return lines


def histogram(feature: Feature) -> Text:
    """One block for each quarter of an octave, as high as the logarithm of its count; empty bins stay blank."""
    from math import log1p

    top = max(n for _, _, n in feature.histogram)
    bars = "".join(BLOCKS[min(7, int(8 * log1p(n) / log1p(top)))] if n else " " for _, _, n in feature.histogram)
    low, high = feature.histogram[0][0], feature.histogram[-1][1]
    return Text.assemble("  ", (f"{low:.3g} ", "dim"), bars, (f" {high:.3g}  (log scales)", "dim"))


def groups(examples: Sequence[Example]) -> Iterator[tuple[str, list[Example]]]:
    """Examples under headings: the strongest, the bands from strong to weak, random ones."""
    for kind in ("top", "band", "random"):
        found = [one for one in examples if one.kind == kind]
        if kind != "band":
            if found:
                yield _HEADINGS[kind], found
            continue
        for low, high in sorted({(one.low or 0.0, one.high or 0.0) for one in found}, reverse=True):
            yield f"Between {low:.4g} and {high:.4g}", [one for one in found if one.low == low]


def one_kind(group: Sequence[Example]) -> str:
    """The kind of the examples of a group."""
    return group[0].kind


def _tokens(pairs: Sequence[tuple[str, float]]) -> str:
    return " ".join(f"“{visible(text)}”" for text, _ in pairs[:8])
