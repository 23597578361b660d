"""One self-contained HTML page for one or several verifications, from their JSON form. No request leaves the page.

The page takes plain data (`Evidence.as_dict()`), so a page can be made from a saved JSON file as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from os import PathLike
from typing import Any

from trimtab.errors import InputError
from trimtab.files import write_file
from trimtab.report.blocks import block, visible

Data = Mapping[str, Any]

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
    reasons = "".join(f"<li>{escape(_sentence(r))}</li>" for r in data["reasons"])
    heading = f"<h2>{escape(data['question'])}</h2>" if count > 1 else ""
    return (
        f'<section id="v{number}">{heading}'
        f'<p class="verdict">{badge(data["verdict"])}</p><ul class="reasons">{reasons}</ul>'
        f"{_table(data)}{_selectivity(data)}{_samples(data, number)}{_made(data)}</section>\n"
    )


def badge(verdict: str, good: Sequence[str] = GOOD, bad: Sequence[str] = BAD) -> str:
    """A verdict in the colour of what it means."""
    kind = "good" if verdict in good else "bad" if verdict in bad else "mixed"
    return f'<strong class="badge {kind}">{escape(verdict)}</strong>'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part)}</p>" for part in text.split("\n\n") if part)


def _columns(data: Data) -> Iterator[tuple[str, str, str]]:
    """Score key, heading, and how its numbers are written ("share" or "number")."""
    several = len(data["targets"]) > 1
    for target in data["targets"]:
        of = f" ({target['name']})" if several else ""
        yield f"firing:{target['name']}", f"firing rate{of}", "share"
        yield f"mean:{target['name']}", f"mean strength{of}", "number"
        yield f"max:{target['name']}", f"largest strength{of}", "number"
    yield "log_likelihood", "log-likelihood, nats per token", "number"
    yield "distinct_2", "different word pairs", "share"
    yield "repetition", "repeated 4-grams", "share"
    for name in data["made"]["judges"]:
        yield f"judge:{name}", name, "number"


def _table(data: Data) -> str:
    columns = list(_columns(data))
    head = "".join(f'<th scope="col">{escape(name)}</th>' for _, name, _ in columns)
    rows = "".join(_row(arm["label"], arm["scores"], columns) for arm in data["arms"])
    gaps = "".join(
        _row(f"{_label(data, c['arm'])} minus {_label(data, c['against'])}", c["scores"], columns, signed=True)
        for c in data["contrasts"]
    )
    some = next(iter(data["arms"][0]["scores"].values()))
    over = "whole prompts" if some["over"] == "prompts" else "samples within the prompts, which are too few for more"
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Scores by arm"><table>'
        f'<thead><tr><th scope="col">written by</th>{head}</tr></thead><tbody>{rows}</tbody>'
        f'<tbody class="gaps">{gaps}</tbody></table></div>'
        f'<p class="note">{some["n"]} texts per arm over {some["clusters"]} prompts, the same seeds in every arm; '
        f"brackets: {some['level']:.0%} bootstrap interval, resampling {over}. Only generated tokens are counted, and "
        "they are read by the unsteered model.</p>"
    )


def _row(label: str, scores: Data, columns: list[tuple[str, str, str]], signed: bool = False) -> str:
    cells = "".join(
        f'<td data-name="{escape(name)}">{_interval(scores.get(key), kind, signed)}</td>' for key, name, kind in columns
    )
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'


def _interval(value: Data | None, kind: str, signed: bool) -> str:
    if value is None or value["mean"] is None:
        return "unscored"
    shown = _number(value["mean"], kind, signed)
    if value["low"] is not None:
        low, high = _number(value["low"], kind, signed), _number(value["high"], kind, signed)
        shown += f' <span class="ci">[{low}, {high}]</span>'
    return shown + (f' <span class="ci">{value["unscored"]} unscored</span>' if value["unscored"] else "")


def _number(value: float, kind: str, signed: bool) -> str:
    if kind == "share":
        text = f"{value * 100:+.1f}" if signed else f"{value * 100:.1f}"
        return text.replace("-", "−") + " %"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def _selectivity(data: Data) -> str:
    items = []
    for one in data["selectivity"]:
        top = ", ".join(f"{feature} ({_number(change, 'number', True)})" for feature, change in one["top"])
        items.append(
            f"<p>Feature {one['feature']} is number {one['rank']} of {one['of']} by change of mean strength "
            f"({_number(one['change'], 'number', True)}).</p><p>Changed most: {escape(top)}.</p>"
        )
    return f"<details><summary>How selective it was</summary>{''.join(items)}</details>" if items else ""


def _samples(data: Data, number: int) -> str:
    """All samples: steered beside unsteered, and the other arms' below them, folded."""
    by_place: dict[tuple[int, int], dict[str, Data]] = {}
    for sample in data["samples"]:
        by_place.setdefault((sample["prompt"], sample["sample"]), {})[sample["arm"]] = sample
    primary = [t["name"] for t in data["targets"]].index(data["primary"])
    top = max((s for x in data["samples"] for s in x["strengths"][primary]), default=0.0)
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
    shown = "unscored" if rate is None else f"fires on {_number(rate, 'share', False)}"
    prompt = escape(visible(data["made"]["prompts"][sample["prompt"]]))
    label = escape(_label(data, sample["arm"]))
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


def _label(data: Data, name: str) -> str:
    return next((arm["label"] for arm in data["arms"] if arm["name"] == name), name)


def _made(data: Data) -> str:
    made = data["made"]
    sampling = ", ".join(f"{k} {v}" for k, v in made["sampling"].items() if v is not None)
    facts = {
        "model": f"{made['model']} ({made['model_fingerprint'][:16]})",
        "SAE": f"{made['sae']} ({made['sae_fingerprint'][:16]})",
        "recipe": f"{made['recipe']} ({made['recipe_digest'][:16]})",
        "seed": str(made["seed"]),
        "sampling": sampling,
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items()),
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<details><summary>How it was made</summary><dl>{rows}</dl></details>"


def again(command: str) -> str:
    """How to get the same numbers again; empty without a command."""
    return (
        f"<footer><p>The same numbers again:</p><pre><code>{escape(command)}</code></pre></footer>" if command else ""
    )
