"""The numbers of a verification as words: what the page, the Markdown and the terminal have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Data = Mapping[str, Any]
Kind = Literal["share", "number"]


_NOT_RUN = {
    "random": "random direction",
    "sign-flipped": "sign flipped",
    "matched-feature": "random feature of like density",
    "shuffled": "selected with shuffled labels",
    "mean-difference": "dense mean difference",
    "prompt": "asked for in words",
}


THIN, OTHER_COST = "†", "‡"
MARKS = {
    THIN: "fewer than 5 texts differ from the commonest value, so the interval is too narrow to trust",
    OTHER_COST: "this arm does not cost what the recipe does, so compare with care",
}


@dataclass(frozen=True)
class Cell:
    """One number as text, its mark (see `MARKS`), its interval in brackets, and how many texts have no score."""

    text: str
    mark: str = ""
    interval: str = ""
    note: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.text + self.mark, self.interval, self.note and f"({self.note})") if part)


@dataclass(frozen=True)
class Grid:
    """A table: what stands over its columns (the first is over the names of the rows), and its rows by name."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def arms(data: Data) -> Grid:
    """One row per arm: its cost, its firing rate, the paired change of it from unsteered, and what judges say."""
    key = f"firing:{data['primary']}"
    gaps = {gap["arm"]: gap["scores"] for gap in data["contrasts"] if gap["against"] == "unsteered"}
    columns: list[tuple[str, str, Kind]] = [("log_likelihood", "log-likelihood", "number")]
    columns.append(("repetition", "repeated 4-grams", "share"))
    columns += [(f"judge:{judge['name']}", judge["name"], "number") for judge in data["made"]["judges"]]
    rows = []
    for arm in data["arms"]:
        gap = gaps.get(arm["name"])
        cells = [cost(arm), cell(arm["scores"][key], "share")]
        cells.append(Cell("") if gap is None else cell(gap[key], "share", signed=True))
        cells += [cell(arm["scores"][name], kind) for name, _, kind in columns]
        rows.append((arm["label"], tuple(cells)))
    heads = ("written by", "KL", "firing rate", "minus unsteered", *(heading for _, heading, _ in columns))
    return Grid(heads, tuple(rows))


def marks(*grids: Grid) -> list[str]:
    """What the marks in these tables mean, those that occur."""
    used = {one.mark for grid in grids for _, cells in grid.rows for one in cells}
    return [f"{mark} {meaning}" for mark, meaning in MARKS.items() if mark in used]


def everything(data: Data) -> tuple[Grid, Grid]:
    """Every score of every arm, and every paired difference between arms."""
    columns = list(_columns(data))
    heads = tuple(heading for _, heading, _ in columns)
    scores = tuple((a["label"], tuple(cell(a["scores"].get(k), kind) for k, _, kind in columns)) for a in data["arms"])
    gaps = tuple(
        (
            f"{label(data, c['arm'])} minus {label(data, c['against'])}",
            tuple(cell(c["scores"].get(k), kind, signed=True) for k, _, kind in columns),
        )
        for c in data["contrasts"]
    )
    return Grid(("written by", *heads), scores), Grid(("difference", *heads), gaps)


def notes(data: Data) -> list[str]:
    """What has to be known to read the tables, in sentences."""
    some = next(iter(data["arms"][0]["scores"].values()))
    over = "whole prompts" if some["over"] == "prompts" else "samples within the prompts, which are too few for more"
    n, prompts = data["made"]["samples"], len(data["made"]["prompts"])
    said = [
        f"{n} texts per prompt and arm over {prompts} prompts, with the same seeds in every arm. Brackets: "
        f"{some['level']:.0%} bootstrap intervals, resampling {over}. Only generated tokens are counted, and the "
        "unsteered model reads them.",
        "KL: how far each arm moves the model's predictions on neutral text, in nats per token. Controls are made as "
        "strong as the recipe is by this measure.",
    ]
    said += [sentence(mark) for mark in marks(arms(data), *everything(data))]
    said += [f"Not run: {label(data, name)}. {why}" for name, why in data["made"]["skipped"].items()]
    for judge in data["made"]["judges"]:
        skill = judge["skill"]
        tested = f" On held-out texts its AUC is {skill['auc']:.2f}." if skill else ""
        about = judge["about"] or "a judge that says nothing of itself"
        said.append(f"{judge['name']}: {about}.{tested}" + (f" {judge['refusal']}." if judge["refusal"] else ""))
    return said


def selectivity(data: Data) -> list[str]:
    """Where the target stands among all features, and which moved furthest."""
    said = []
    for one in data["selectivity"]:
        first = ", ".join(f"{m['feature']} ({number(m['standardised'], 'number', signed=True)})" for m in one["top"])
        said.append(
            f"Feature {one['feature']} is number {one['rank']} of {one['of']} by standardised change "
            f"({number(one['standardised'], 'number', signed=True)}) and number {one['rank_by_change']} by the bare "
            f"change of its mean strength ({number(one['change'], 'number', signed=True)}). Moved furthest: {first}."
        )
    return said


def made(data: Data) -> dict[str, str]:
    """What was used, so that the numbers can be had again."""
    how = data["made"]
    facts = {
        "model": f"{how['model']} ({how['model_fingerprint'][:16]})",
        "SAE": f"{how['sae']} ({how['sae_fingerprint'][:16]}), read at {_site(how['site'])}",
        "recipe": f"{how['recipe']} ({how['recipe_digest'][:16]})",
        "edited": "; ".join(_edited(one) for one in how["receipt"]),
        "contrast set": "" if how["contrast"] is None else how["contrast"][:16],
        "asked for with": how["ask"] or "",
        "seed": str(how["seed"]),
        "sampling": ", ".join(f"{k} {v}" for k, v in how["sampling"].items() if v is not None),
        "versions": ", ".join(f"{k} {v}" for k, v in how["versions"].items()),
    }
    return {name: value for name, value in facts.items() if value}


def label(data: Data, name: str) -> str:
    """What an arm is called in tables."""
    return next((arm["label"] for arm in data["arms"] if arm["name"] == name), _NOT_RUN.get(name, name))


def sentence(text: str) -> str:
    """A clause as a sentence."""
    return text[:1].upper() + text[1:] + "."


def cost(arm: Data) -> Cell:
    """An arm's KL, marked where it is not the recipe's."""
    if arm["kl"] is None:
        return Cell("")
    return Cell(number(arm["kl"], "number"), OTHER_COST if arm["reached"] is False else "")


def cell(value: Data | None, kind: Kind, *, signed: bool = False) -> Cell:
    """A mean with its interval; "unscored" where there is none, never 0."""
    if value is None or value["mean"] is None:
        return Cell("unscored")
    shown = number(value["mean"], kind, signed=signed)
    note = f"{value['unscored']} unscored" if value["unscored"] else ""
    if value["low"] is None:
        return Cell(shown, note=note)
    mark = THIN if value["thin"] and value["low"] < value["high"] else ""
    low, high = (number(value[end], kind, signed=signed).removesuffix(" %") for end in ("low", "high"))
    return Cell(shown, mark, f"[{low}, {high}]", note)


def number(value: float, kind: Kind, *, signed: bool = False) -> str:
    """A share in percent, or a number with about three digits; minus signs as such."""
    if kind == "share":
        return (f"{value * 100:+.1f}" if signed else f"{value * 100:.1f}").replace("-", "−") + " %"
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return (f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}").replace("-", "−")


def strongest(data: Data) -> float:
    """The largest strength of the first target in any text, so that highlights can be compared."""
    primary = place(data)
    return max((s for one in data["samples"] for s in one["strengths"][primary]), default=0.0)


def place(data: Data) -> int:
    """Which of the targets the verdict is about."""
    names: Sequence[str] = [target["name"] for target in data["targets"]]
    return names.index(data["primary"])


def _columns(data: Data) -> Iterator[tuple[str, str, Kind]]:
    several = len(data["targets"]) > 1
    for target in data["targets"]:
        of = f" ({target['name']})" if several else ""
        yield f"firing:{target['name']}", f"firing rate{of}", "share"
        yield f"mean:{target['name']}", f"mean strength{of}", "number"
        yield f"max:{target['name']}", f"largest strength{of}", "number"
    yield "log_likelihood", "log-likelihood, nats per token", "number"
    yield "distinct_2", "different word pairs", "share"
    yield "repetition", "repeated 4-grams", "share"
    for judge in data["made"]["judges"]:
        yield f"judge:{judge['name']}", judge["name"], "number"


def _site(site: Data) -> str:
    return f"model.layers.{site['layer']}.output" if site["layer"] >= 0 else "model.layers.0.input"


def _edited(one: Data) -> str:
    return (
        f"{one['site']}: {one['prompt_tokens'][0]} of {one['prompt_tokens'][1]} prompt tokens and "
        f"{one['generated_tokens'][0]} of {one['generated_tokens'][1]} generated ones that were read (first sample "
        f"of each prompt), where the change is {one['ratio']:.0%} of the residual's length on average"
    )
