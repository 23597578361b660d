"""A finding as one self-contained page, from its JSON form, for people who have never seen an SAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from os import PathLike
from typing import Any

from trimtab.files import write_file
from trimtab.report.blocks import visible
from trimtab.report.feature_map import colour, feature_map
from trimtab.report.html import again, frame, token_mark
from trimtab.report.parts import row, section, table, written
from trimtab.report.words import CHECKED, SIDES, named, reading, repeated, shift, signed, sizes, verdict

Data = Mapping[str, Any]

WHAT = (
    "A language model reads a text as a long list of numbers for each token. A sparse autoencoder (SAE) takes those "
    "numbers apart into features, of which only a few are on at a time; many of them stand for something that a person "
    "can name. This page shows which features the positive texts switch on, and what the model writes when they are "
    "pushed up or down."
)


def write_finding(path: str | PathLike[str], data: Data, command: str = "") -> None:
    """Write the page of a finding, completely or not at all."""
    text = finding_page(data, command)
    with write_file(path) as part:
        part.write_text(text, encoding="utf-8")


def finding_page(data: Data, command: str = "") -> str:
    """The whole page. `command` gives the same finding again."""
    header = (
        f'<p class="lead">{escape(verdict(data))}</p><p class="note">{escape(reading(data))}</p>'
        f'<details><summary>What this is</summary><p class="note">{escape(WHAT)}</p></details>'
    )
    body = (
        written(data.get("lines") or ()) + _ways(data) + _features(data) + _clusters(data) + _positions(data)
        + _set(data) + _made(data) + again(command)
    )  # fmt: skip
    return frame(f"What {data['contrast']['name']} is made of in {data['model']}", header, body)


def _ways(data: Data) -> str:
    if not data["candidates"]:
        return ""
    rows = ""
    for one in data["candidates"]:
        chosen, base = one["name"] == data["chosen"], one["name"] == data["baseline"]
        tested = data["test"] if chosen else data["baseline_test"] if base else None
        label = named(one["name"])
        cells = {
            "features": str(sum(map(len, one["features"])) or "none"),
            "on the texts that choose": shift(one["dev"]),
            "on test texts": shift(tested) if tested else "not measured",
            "tells the sides apart (AUC)": "–" if one["auc"] is None else f"{one['auc']:.2f}",
        }
        rows += row(label, cells, "chosen" if chosen else "")
    heads = [
        "way to steer",
        "features",
        "on the texts that choose",
        "on test texts",
        "tells the sides apart (AUC)",
    ]
    return section(
        "Ways to steer, side by side",
        "How much likelier each way makes the positive texts than the negative ones, in nats per token, with a 95 % "
        f"interval. Each is pushed as hard as costs {data['settings']['kl']:g} nats per token of text about other "
        f"things, so that they can be compared. The marked row is the recipe. {CHECKED}",
        table(heads, rows, "Ways to steer"),
    )


def _features(data: Data) -> str:
    out = ""
    for name, features in zip(data["saes"], data["features"], strict=True):
        if not features:
            continue
        rows = "".join(_feature(one) for one in features)
        heads = [
            "feature",
            "fires on",
            "share of texts",
            "effect (Cohen's d)",
            "AUC",
            "gain",
            "output score",
            "promotes",
        ]
        out += section(
            f"Features of {name} at {features[0]['site']}",
            "What a feature reads: the words it fires on, how often it fires on positive and negative texts, and how "
            "clearly it tells them apart. What it writes: gain, the nats per token by which pushing it makes held-out "
            "positive texts likelier (to first order), and the output score, how surely pushing it makes the model "
            "say the tokens that it promotes (0 to 1). Reading and writing rarely go together. Bold: in the recipe.",
            table(heads, rows, "Features") + _examples(features),
        )
    return out


def _feature(one: Data) -> str:
    used = f"<strong>{one['index']}</strong>" if one["weight"] else str(one["index"])
    dot = f'<span class="dot" style="--c:{colour(one["cluster"])}"></span>'
    own, other = one["coverage"], one["other_coverage"]
    share = f'{own:.0%} / {other:.0%}<span class="bar"><i style="--s:{own:.2f}"></i></span>'
    cells = {
        "fires on": escape(", ".join(visible(word) for word in one["words"])) or "–",
        "positive / negative texts": share,
        "effect (Cohen's d)": f'{signed(one["effect"])} <span class="ci">{signed(one["held_effect"])} held out</span>',
        "AUC": f'{one["auc"]:.2f} <span class="ci">{one["held_auc"]:.2f} held out</span>',
        "gain": signed(one["gain"], 3),
        "output score": "unscored" if one["output"] is None else f"{one['output']:.2g}",
        "promotes": escape(" ".join(visible(word.strip()) for word in one["promoted"][:4])),
    }
    return row(dot + used, cells, raw=True)


def _examples(features: Sequence[Data]) -> str:
    """The strongest texts of each feature, folded."""
    out = ""
    for one in features:
        top = max((max(text["values"]) for text in one["examples"]), default=0.0)
        items = "".join(
            f'<li><span class="side" title="{"positive" if text["positive"] else "negative"} text">'
            f"{'+' if text['positive'] else '−'}</span>"
            + "".join(token_mark(t, v, top) for t, v in zip(text["tokens"], text["values"], strict=True))
            + "</li>"
            for text in one["examples"]
        )
        head = f"Feature {one['index']}: {escape(', '.join(visible(word) for word in one['words']))}"
        out += f'<details><summary>{head}</summary><ul class="examples show">{items}</ul></details>'
    return f"<h3>Where they fire</h3><p class='note'>The strongest training texts of each.</p>{out}"


def _clusters(data: Data) -> str:
    out = ""
    for clustering, features in zip(data["clusterings"], data["features"], strict=True):
        if len(features) < 2:
            continue
        rows = ""
        for number, one in enumerate(clustering["clusters"], start=1):
            cells = {
                "fires on": escape(", ".join(visible(word) for word in one["words"])),
                "promotes": escape(" ".join(visible(word.strip()) for word in one["name"][:4])),
                "features": ", ".join(map(str, one["features"])),
                "cosine": f"{one['cosine']:.2f}",
                "stability": f"{one['stability']:.2f}",
            }
            rows += row(f'<span class="dot" style="--c:{colour(number)}"></span>{number}', cells, raw=True)
        heads = ["cluster", "fires on", "promotes", "features", "cosine", "stability"]
        alone = "<p>No two of these features are alike enough to form a cluster.</p>"
        listed = table(heads, rows, "Clusters") if rows else alone
        out += feature_map(features, clustering["clusters"]) + listed
    if not out:
        return ""
    return section(
        "Clusters",
        "Features near each other on the map are alike: they point the same way in the model, fire on the same texts, "
        "or both. The larger a dot, the more its feature gains; grey ones are in no cluster. Cosine: how alike the "
        "directions within a cluster are. Stability: how often they stay together when features and texts are drawn "
        "anew.",
        out,
    )


def _positions(data: Data) -> str:
    strips = ""
    for one in data["positions"]:
        cells = "".join(
            f'<span style="--s:{heat:.2f}" title="{effect:.2f} times chance, {count} texts">{signed(slot, 0)}</span>'
            for slot, heat, effect, count in zip(one["slots"], one["heat"], one["effect"], one["counts"], strict=True)
        )
        about = f"{one['site']}, tokens {SIDES[one['align']]}"
        strips += f'<p class="note">{escape(about)}</p><div class="strip" role="img" aria-label="{about}">{cells}</div>'
    note = (
        "How far apart the two sides are at each position, beyond what shuffled labels give; blank where it could be "
        "chance."
    )
    return section("Where in the text they differ", note, strips) if strips else ""


def _set(data: Data) -> str:
    contrast = data["contrast"]
    yes, no = contrast["first"]
    items = "".join(
        f'<li><span class="side">+</span>{escape(a)}<br>'
        f'<span class="side">−</span><span class="prompt">{escape(b)}</span></li>'
        for a, b in zip(yes, no, strict=False)
    )
    said = f"{sizes(data)}; {repeated(data)}. Source: {contrast['source']}."
    return section("The contrast set", said[:1].upper() + said[1:], f'<ul class="examples">{items}</ul>')


def _made(data: Data) -> str:
    facts = {
        "model": data["model"],
        "SAE": ", ".join(data["saes"]),
        "contrast": data["contrast"]["digest"][:16],
        "recipe": (data["recipe"] or "none")[:16],
        "settings": ", ".join(
            f"{k} {v}" + ("" if k in data["given"] else " (default)") for k, v in data["settings"].items()
        ),
    }
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in facts.items())
    return f"<details><summary>How it was made</summary><dl>{rows}</dl></details>"
