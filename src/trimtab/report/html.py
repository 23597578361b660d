"""One self-contained HTML page for one or several verifications, from their JSON form. No request leaves the page.

The page takes plain data (`Evidence.as_dict()`), so a page can be made from a saved JSON file as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from os import PathLike

from trimtab.errors import InputError
from trimtab.files import write_file
from trimtab.report import dose_figure, tables
from trimtab.report.blocks import block, visible
from trimtab.report.tables import Cell, Data, Grid

MAX_BYTES = 2_000_000
"""A page stays below this: people send it by mail."""

GOOD = ("works",)
BAD = ("no effect", "reversed", "not measured")


def write_page(
    path: str | PathLike[str], evidences: Sequence[Data], *, title: str, intro: str = "", command: str = ""
) -> None:
    """Write `page(...)` to `path`, completely or not at all."""
    text = page(evidences, title=title, intro=intro, command=command)
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def page(evidences: Sequence[Data], *, title: str, intro: str = "", command: str = "") -> str:
    """The whole page. `intro`: plain text, a blank line between paragraphs. `command`: gives the same numbers again.

    Raises `InputError` when there is nothing to show or the page would be larger than `MAX_BYTES`.
    """
    if not evidences:
        raise InputError("A report needs at least one verification.")
    body = "".join(_section(data, number, len(evidences)) for number, data in enumerate(evidences, start=1))
    header = (
        f"{_paragraphs(intro)}{_overview(evidences)}"
        '<p><button type="button" class="all" aria-pressed="false">Show where the features fire</button></p>'
    )
    return frame(title, header, f"{body}{again(command)}")


def frame(title: str, header: str, body: str) -> str:
    """A page of its own around `header` and `body` (HTML), with style and script inside it.

    Raises `InputError` when it would be larger than `MAX_BYTES`.
    """
    here = files("trimtab.report")
    out = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{(here / 'page.css').read_text('utf-8')}</style>\n"
        "<noscript><style>.toggle, .all { display: none }</style></noscript>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1>{header}</header>\n"
        f"{body}</main>\n<script>\n{(here / 'page.js').read_text('utf-8')}</script>\n"
        "</body>\n</html>\n"
    )
    size = len(out.encode())
    if size > MAX_BYTES:
        raise InputError(
            f"The page would be {size / 1e6:.1f} MB, over the {MAX_BYTES / 1e6:.0f} MB that a report may have. "
            "Write fewer verifications or samples to one page; the JSON has no limit."
        )
    return out


def _overview(evidences: Sequence[Data]) -> str:
    if len(evidences) < 2:
        return ""
    items = (
        f'<li><a href="#v{n}">{escape(e["question"])}</a> {badge(e["verdict"])}</li>'
        for n, e in enumerate(evidences, start=1)
    )
    return f'<ul class="overview">{"".join(items)}</ul>'


def _section(data: Data, number: int, count: int) -> str:
    reasons = "".join(f"<li>{escape(tables.sentence(r))}</li>" for r in data["reasons"])
    heading = f"<h2>{escape(data['question'])}</h2>" if count > 1 else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in tables.notes(data))
    parts = (
        f'<p class="verdict">{badge(data["verdict"])}</p><ul class="reasons">{reasons}</ul>',
        _table(tables.arms(data), "Scores by arm"),
        notes,
        dose_figure.figure(data["dose"]) if data["dose"] else "",
        _more(data),
        _samples(data, number),
        _made(data),
    )
    return f'<section id="v{number}">{heading}{"".join(parts)}</section>\n'


def badge(verdict: str, good: Sequence[str] = GOOD, bad: Sequence[str] = BAD) -> str:
    """A verdict in the colour of what it means."""
    kind = "good" if verdict in good else "bad" if verdict in bad else "mixed"
    return f'<strong class="badge {kind}">{escape(verdict)}</strong>'


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part)


def _table(grid: Grid, name: str) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in grid.headings)
    rows = "".join(
        f'<tr><th scope="row">{escape(row)}</th>'
        + "".join(_cell(heading, one) for heading, one in zip(grid.headings[1:], cells, strict=True))
        + "</tr>"
        for row, cells in grid.rows
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(heading: str, cell: Cell) -> str:
    small = "".join(f'<span class="ci">{escape(part)}</span>' for part in (cell.interval, cell.note) if part)
    empty = "" if str(cell) else ' class="empty"'
    return f'<td data-name="{escape(heading)}"{empty}>{escape(cell.text + cell.mark)}{" " if small else ""}{small}</td>'


def _more(data: Data) -> str:
    """What is folded away: selectivity, and every score and difference."""
    said = "".join(f"<p>{escape(one)}</p>" for one in tables.selectivity(data))
    scores, gaps = tables.everything(data)
    return (
        (f"<details><summary>How selective it was</summary>{said}</details>" if said else "")
        + f"<details><summary>All scores and all differences</summary>{_table(scores, 'All scores')}"
        + f"{_table(gaps, 'All differences')}</details>"
    )


def _samples(data: Data, number: int) -> str:
    """All samples: steered beside unsteered, and the other arms' below them, folded."""
    by_place: dict[tuple[int, int], dict[str, Data]] = {}
    for sample in data["samples"]:
        by_place.setdefault((sample["prompt"], sample["sample"]), {})[sample["arm"]] = sample
    primary, top = tables.place(data), tables.strongest(data)
    others = [arm["name"] for arm in data["arms"] if arm["name"] not in ("unsteered", "recipe")]
    out = [
        f"<h3>All samples</h3><p class='note'>None was picked. Bars show the strength of {escape(data['primary'])}.</p>"
    ]
    for index, prompt in enumerate(data["made"]["prompts"]):
        out.append(f"<h4>“{escape(visible(prompt))}”</h4>")
        for (_, sample), arms in sorted(kv for kv in by_place.items() if kv[0][0] == index):
            pair = "".join(_text(data, arms[a], primary, top) for a in ("unsteered", "recipe") if a in arms)
            more = "".join(_text(data, arms[a], primary, top) for a in others if a in arms)
            folded = f"<details><summary>Controls</summary><div class='pair'>{more}</div></details>" if more else ""
            card = f"s{number}-{index}-{sample}"
            out.append(
                f'<article id="{card}"><header><span>Sample {sample + 1}</span><button type="button" class="toggle" '
                f'aria-pressed="false" aria-controls="{card}">Show firing</button></header>'
                f"<div class='pair'>{pair}</div>{folded}</article>"
            )
    return "".join(out)


def _text(data: Data, sample: Data, primary: int, top: float) -> str:
    body = "".join(token_mark(t, s, top) for t, s in zip(sample["tokens"], sample["strengths"][primary], strict=True))
    rate = sample["scores"].get(f"firing:{data['primary']}")
    shown = "unscored" if rate is None else f"fires on {tables.number(rate, 'share')}"
    prompt = escape(visible(data["made"]["prompts"][sample["prompt"]]))
    label = escape(tables.label(data, sample["arm"]))
    kind = " steered" if sample["arm"] == "recipe" else ""
    return (
        f'<figure class="text{kind}"><figcaption>{label} · <span class="ci">{shown}</span></figcaption>'
        f'<p><span class="prompt">{prompt}</span>{body}</p></figure>'
    )


def token_mark(token: str, strength: float, top: float) -> str:
    """A token as HTML, marked by its strength relative to `top`; marks show inside an element of class `show`."""
    text = escape("".join(c if c == "\n" else visible(c) for c in token))
    if strength <= 0:
        return text
    lead = text[: len(text) - len(text.lstrip())]
    share = min(1.0, strength / top) if top > 0 else 0.0
    bar = f"<b>{block(strength, top)}</b>"
    return f'{lead}<mark style="--s:{share:.2f}" title="{strength:.4g}">{text[len(lead) :]}{bar}</mark>'


def _made(data: Data) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in tables.made(data).items())
    return f"<details><summary>How it was made</summary><dl>{rows}</dl></details>{again(data['made']['command'])}"


def again(command: str) -> str:
    """How to get the same numbers again; empty without a command."""
    return (
        f"<footer><p>The same numbers again:</p><pre><code>{escape(command)}</code></pre></footer>" if command else ""
    )
