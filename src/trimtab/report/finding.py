"""A finding as it is shown in a terminal, from its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trimtab.report.blocks import BLOCKS, narrow, visible
from trimtab.report.words import CHECKED, SIDES, reading, repeated, shift, signed, sizes, verdict

Data = Mapping[str, Any]

SHOWN = 16
"""Features that a terminal shows for each site."""
LEGEND = (
    "on + / −: share of positive and negative texts in which the feature fires. Effect and AUC: on held-out texts. "
    "Gain: nats per token at a matched cost, to first order. Output: output score."
)


def finding(data: Data) -> Iterator[RenderableType]:
    """The whole report, part by part."""
    yield Text(data["contrast"]["name"], style="bold") + Text(f"  {sizes(data)}; {repeated(data)}")
    yield Text(f"model {data['model']}, SAE {', '.join(data['saes'])}", style="dim")
    yield Text()
    yield Text(verdict(data))
    yield Text(reading(data), style="dim")
    for place in data["positions"]:
        yield _heading(f"Where the sides differ at {place['site']}")
        yield _strip(place)
    for features in data["features"]:
        if features:
            yield _heading(f"Features at {features[0]['site']}")
            yield features_table(features[:SHOWN])
            yield Text(LEGEND, style="dim")
            if len(features) > SHOWN:
                yield Text(f"The best {SHOWN} of {len(features)}; --html and --json have all of them.", style="dim")
    if any(one["clusters"] for one in data["clusterings"]):
        yield _heading("Clusters")
        for one in data["clusterings"]:
            yield from _clusters(one)
    if data["candidates"]:
        yield _heading(f"Ways to steer, all at a cost of {data['settings']['kl']:g} nats per token of neutral text")
        yield candidates_table(data)
        yield Text(CHECKED, style="dim")
    if data.get("lines"):
        yield _heading("What it writes (same random numbers on each line; none is picked)")
        yield from lines(data["lines"])


def features_table(features: Sequence[Data]) -> Table:
    """One row for each feature: what it reads beside what it writes. Numbers are never cut; words give way to them."""
    table = Table(box=SIMPLE, pad_edge=False, padding=0, header_style="dim")
    table.add_column("feature", justify="right", no_wrap=True, min_width=7)
    table.add_column("fires on", no_wrap=True, max_width=25)
    table.add_column("promotes", no_wrap=True, max_width=14)
    numbers = {"on + / −": 11, "effect": 7, "AUC": 5, "gain": 7, "output": 7, "cluster": 8}
    for heading, width in numbers.items():
        table.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for one in features:
        table.add_row(
            Text(str(one["index"]), style="bold" if one["weight"] else "dim"),
            Text(", ".join(visible(word) for word in one["words"][:3])),
            Text(" ".join(visible(word.strip()) for word in one["promoted"][:3]), style="dim"),
            f"{one['coverage']:.0%} / {one['other_coverage']:.0%}",
            signed(one["held_effect"], 1),
            f"{one['held_auc']:.2f}",
            signed(one["gain"], 3),
            "–" if one["output"] is None else f"{one['output']:.3f}",
            str(one["cluster"] or "–"),
        )
    return table


def candidates_table(data: Data) -> Table:
    """What each way to steer does on the texts that chose, and the chosen one on those that did not."""
    table = Table(box=SIMPLE, pad_edge=False, header_style="dim")
    for heading in ("", "features", "likelier by, nats per token (95 %)", "tells apart, AUC"):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in data["candidates"]:
        chosen = one["name"] == data["chosen"]
        count = sum(map(len, one["features"]))
        base = "" if count else " (no features)"
        style = "bold" if chosen else "dim"
        table.add_row(
            Text(("▸ " if chosen else "  ") + one["name"] + base, style=style), str(count) if count else "–",
            Text(shift(one["dev"]), style=style), "–" if one["auc"] is None else f"{one['auc']:.2f}",
        )  # fmt: skip
    table.add_section()
    table.add_row(f"  {data['chosen']}, on test texts", "", Text(shift(data["test"]), style="bold"), "")
    if data["chosen"] != data["baseline"]:
        table.add_row(f"  {data['baseline']}, on test texts", "", shift(data["baseline_test"]), "")
    return table


def lines(given: Sequence[Data]) -> Iterator[Text]:
    """Texts towards the positive side, unsteered, and away from it, with the recipe's features marked."""
    top = max((s for one in given for s in one["strengths"] or ()), default=0.0)
    order = {prompt: i for i, prompt in enumerate(dict.fromkeys(one["prompt"] for one in given))}
    seen = None
    for one in sorted(given, key=lambda one: (order[one["prompt"]], one["sample"], -one["factor"])):
        if seen not in (None, one["prompt"]):
            yield Text()
        seen = one["prompt"]
        strengths = one["strengths"] or [0.0] * len(one["tokens"])
        label = f"  {factor_name(one['factor']):>9}  "
        yield (
            Text(label, style="bold" if one["factor"] > 0 else "dim")
            + Text(visible(one["prompt"]), style="dim")
            + narrow(one["tokens"], strengths, top)
        )


def factor_name(factor: float) -> str:
    """`towards`, `unsteered` or `away`, with the multiple of the recipe where it is not 1."""
    if not factor:
        return "unsteered"
    name = "towards" if factor > 0 else "away"
    return name if abs(factor) == 1 else f"{name} ×{abs(factor):g}"


def _heading(text: str) -> Text:
    return Text(f"\n{text}", style="bold")


def _strip(place: Data) -> Text:
    line = Text("  ")
    for heat in place["heat"]:
        line.append(BLOCKS[min(int(8 * heat), 7)] if heat else "·", style="rgb(240,130,20)" if heat else "dim")
    first, last = place["slots"][0], place["slots"][-1]
    line.append(f"  tokens {first} to {last}, {SIDES[place['align']]}".replace("-", "−"), style="dim")
    if not any(place["heat"]):
        line.append("; no single position differs by more than chance", style="dim")
    return line


def _clusters(one: Data) -> Iterator[Text]:
    for number, cluster in enumerate(one["clusters"], start=1):
        words = ", ".join(visible(word) for word in cluster["words"])
        about = (
            f"{len(cluster['features'])} features, cosine {cluster['cosine']:.2f}, stability {cluster['stability']:.2f}"
        )
        yield Text(f"  {number}  ", style="bold") + Text(words) + Text(f"  ({about})", style="dim")
    if one["loose"]:
        yield Text(f"  {len(one['loose'])} features in no cluster", style="dim")
