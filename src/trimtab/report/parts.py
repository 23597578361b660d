"""Parts that pages are put together from: sections, tables, texts side by side. All take HTML or plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from trimtab.report.blocks import visible
from trimtab.report.finding import factor_name
from trimtab.report.html import token_mark
from trimtab.report.words import signed

Data = Mapping[str, Any]


def section(heading: str, note: str, body: str) -> str:
    """A part of a page: heading, a note in plain text, and HTML."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<section><h2>{escape(heading)}</h2>{said}{body}</section>\n"


def written(lines: Sequence[Data]) -> str:
    """Texts at several strengths side by side, the positive ones first; empty without any."""
    if not lines:
        return ""
    top = max((s for one in lines for s in one["strengths"] or ()), default=0.0)
    groups: dict[tuple[str, int], list[Data]] = {}
    for one in lines:
        groups.setdefault((one["prompt"], one["sample"]), []).append(one)
    cards = ""
    for group in groups.values():
        texts = "".join(_line(one, top) for one in sorted(group, key=lambda one: -one["factor"]))
        cards += f'<article class="show"><div class="three">{texts}</div></article>'
    return section(
        "What it writes",
        "The same prompt and the same random numbers with the recipe (towards the positive side), without it, and "
        "against it. No text was picked. Marks: where the features fire when the unsteered model reads the text back.",
        cards,
    )


def _line(one: Data, top: float) -> str:
    strengths = one["strengths"] or [0.0] * len(one["tokens"])
    body = "".join(token_mark(t, s, top) for t, s in zip(one["tokens"], strengths, strict=True))
    cost = "" if one["log_likelihood"] is None else f"{signed(one['log_likelihood'])} nats per token"
    kind = " steered" if one["factor"] > 0 else ""
    return (
        f'<figure class="text{kind}"><figcaption>{factor_name(one["factor"])} · <span class="ci">{cost}</span>'
        f'</figcaption><p><span class="prompt">{escape(visible(one["prompt"]))}</span>{body}</p></figure>'
    )


def table(heads: Sequence[str], rows: str, label: str) -> str:
    """A table that scrolls where it is wide and becomes cards on a phone."""
    head = "".join(f'<th scope="col">{escape(one)}</th>' for one in heads)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def row(label: str, cells: Mapping[str, str], kind: str = "", *, raw: bool = False) -> str:
    """A row; `raw` cells are HTML already."""
    made = "".join(
        f'<td data-name="{escape(name)}">{value if raw else escape(value)}</td>' for name, value in cells.items()
    )
    start = f'<tr class="{kind}">' if kind else "<tr>"
    return f'{start}<th scope="row">{label if raw else escape(label)}</th>{made}</tr>'
