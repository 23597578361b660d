"""The tables of docs/finding-measured.md, from the results of find_methods, find_persona and find_cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from find_methods import BOTH, LARGE, SMALL
from tables import table

from trimtab.find.stats import bootstrap_mean

BAR = 0.95
BEST = "best cluster"
FOUND = "what find takes"
CONTROL = "random direction"
NAMES = {
    "caa": "dense: mean difference (CAA)",
    "pca": "dense: first principal direction",
    "probe": "dense: logistic probe",
    "one feature, by effect": "one feature, the largest effect (input)",
    "one feature, by output score": "one feature, the largest output score",
    "one feature, by gain": "one feature, the largest gain (output)",
    "equal": "32 features: equal",
    "mean_difference": "32 features: mean difference",
    "per_prompt": "32 features: per-prompt least squares",
    "ridge": "32 features: ridge",
    "non_negative": "32 features: non-negative",
    "elastic_net": "32 features: elastic net",
    "logistic": "32 features: logistic",
    "fgaa": "FGAA's own features",
    BEST: "the best cluster on dev",
    FOUND: "the best on dev of feature, cluster and all 32",
    CONTROL: "control: random direction",
    "32 random features": "control: 32 random features",
    "labels shuffled, caa": "control: mean difference of shuffled labels",
    "labels shuffled, 32 features": "control: 32 features of shuffled labels",
}
COLUMNS = ("caa", "probe", "one feature, by gain", "mean_difference", "logistic", "per_prompt", BEST, CONTROL)


class Lines:
    """The measurements, by set, part, arm, texts and cost."""

    def __init__(self, path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        self.ends = {line["set"]: line for line in lines if line["part"] == "end"}
        self.sets = [name for name in dict.fromkeys(line["set"] for line in lines) if name in self.ends]
        self.by = {(x["set"], x["part"], x["arm"], x["on"], x["kl"]): x for x in lines if x["set"] in self.ends}

    def get(self, name: str, arm: str, kl: float = SMALL, part: str | None = None, on: str = "test") -> Any:
        """The line of one set and arm, or None where the arm has nothing to say there."""
        if arm in (BEST, FOUND):
            arm, part = self.chosen(name, arm == FOUND), None
        for kind in (part,) if part else ("methods", "controls", "clusters"):
            found = self.by.get((name, kind, arm, on, kl))
            if found is not None and "shift" in found:
                return found
        return None

    def chosen(self, name: str, any_kind: bool) -> str:
        """The cluster, or any way of `find`, that did most on dev."""
        tried = {key[2]: x["shift"] for key, x in self.by.items()
                 if key[0] == name and key[1] == "choice of find" and "shift" in x}  # fmt: skip
        kept = {arm: shift for arm, shift in tried.items() if any_kind or arm.startswith("cluster ")}
        return max(kept, key=lambda arm: kept[arm], default="")

    def shifts(self, arm: str, kl: float = SMALL, part: str | None = None, only: str = "") -> dict[str, float]:
        """The shift of every set that has the arm; `only` sets whose name starts so."""
        found = {name: self.get(name, arm, kl, part) for name in self.sets if name.startswith(only)}
        return {name: line["shift"] for name, line in found.items() if line is not None}


def interval(values: Iterable[float], sign: str = "+") -> str:
    """Mean with its 95 % bootstrap interval over sets."""
    array = np.array(list(values))
    if not len(array):
        return ""
    mean, low, high = bootstrap_mean(array)
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def difference(one: dict[str, float], other: dict[str, float]) -> tuple[str, str]:
    """The mean difference over common sets with its interval and wins, and whether it is more, less or neither."""
    common = [name for name in one if name in other]
    gaps = np.array([one[name] - other[name] for name in common])
    if not len(gaps):
        return "not measured", "unknown"
    _, low, high = bootstrap_mean(gaps)
    verdict = "more" if low > 0 else "less" if high < 0 else "neither"
    return f"{interval(gaps)}, more in {int((gaps > 0).sum())} of {len(gaps)} sets", verdict


def measured(lines: Lines, every: Sequence[str]) -> str:
    """Which sets there are numbers of, and which are still to be measured."""
    lacking = [name for name in every if name not in lines.sets]
    rest = f" Not measured yet: {', '.join(lacking)}." if lacking else ""
    return f"Measured: {len(lines.sets)} of {len(every)} sets ({', '.join(lines.sets)}).{rest}"


def methods(lines: Lines) -> str:
    """Every way, means over the sets."""
    rows = []
    for arm, label in NAMES.items():
        small, large = lines.shifts(arm), lines.shifts(arm, LARGE) if arm in BOTH else {}
        sure = sum(lines.get(name, arm)["low"] > 0 for name in small)
        rows.append([label, interval(small.values()), f"{sure} of {len(small)}", interval(large.values())])
    head = [
        f"of {len(lines.sets)} sets",
        f"shift at KL {SMALL}",
        "sets whose interval is above 0",
        f"shift at KL {LARGE}",
    ]
    return table(head, rows)


def by_set(lines: Lines) -> str:
    """The main ways for each set, with the interval over its held-out texts."""
    rows = []
    for name in lines.sets:
        found = [lines.get(name, arm) for arm in COLUMNS]
        rows.append([name, *("none" if x is None else f"{x['shift']:+.2f} [{x['low']:+.2f}, {x['high']:+.2f}]"
                             for x in found)])  # fmt: skip
    return table(["set", *(NAMES[arm].removeprefix("dense: ").removeprefix("32 features: ") for arm in COLUMNS)], rows)


def regression(lines: Lines) -> str:
    """Per-prompt least squares, one thing changed at a time."""
    arms = dict.fromkeys(key[2] for key in lines.by if key[1] == "regression")
    rows = []
    for arm in sorted(arms, key=lambda arm: (-len(lines.shifts(arm, part="regression")), arm)):
        found = [x for key, x in lines.by.items() if key[1] == "regression" and key[2] == arm]
        noted = [_mean(found, key) for key in ("features", "condition", "fits", "carries", "cosine with caa")]
        shifts = lines.shifts(arm, part="regression")
        rows.append([arm, str(len(shifts)), interval(shifts.values()), *noted])
    head = ["weights from", "sets", f"shift at KL {SMALL}", "features of a prompt", "condition number"]
    head += ["own delta explained", "others' deltas explained", "cosine with CAA"]
    return table(head, rows)


def _mean(found: Sequence[dict[str, Any]], key: str) -> str:
    values = [x[key] for x in found if x.get(key) is not None]
    if not values:
        return ""
    mean = float(np.median(values) if key == "condition" else np.mean(values))
    return f"{mean:,.0f}" if mean > 20 else f"{mean:.2f}"


def layers(lines: Lines) -> str:
    """One site against several."""
    rows = [
        ["mean difference, block 7", interval(lines.shifts("caa").values())],
        ["mean difference, block 9", interval(lines.shifts("caa, late", part="layers").values())],
        ["mean difference, blocks 7 and 9", interval(lines.shifts("caa, both", part="layers").values())],
        ["mean difference, blocks 5, 7, 9 and 11", interval(lines.shifts("caa, four sites", part="layers").values())],
        ["32 features, block 7", interval(lines.shifts("mean_difference").values())],
        ["32 features, block 9", interval(lines.shifts("32 features, late", part="layers").values())],
        ["32 + 32 features, blocks 7 and 9", interval(lines.shifts("32 features, both", part="layers").values())],
    ]
    return table(["", f"shift at KL {SMALL}"], rows)


def pairs_of(lines: Lines, arm: str, n: int, only: str) -> dict[str, float]:
    """Shift of every set with `n` texts a side, a mean over the draws."""
    draws = [lines.shifts(f"{arm}, {n}, draw {seed}", part="pairs", only=only) for seed in range(3)]
    every = dict.fromkeys(name for draw in draws for name in draw)
    return {name: float(np.mean([draw[name] for draw in draws if name in draw])) for name in every}


def pairs(lines: Lines) -> str:
    """How many pairs are enough."""
    rows = []
    for n in (10, 30, 100, 300):
        cells = []
        for only in ("persona: ", ""):
            for arm in ("caa", "mean_difference"):
                found = pairs_of(lines, arm, n, only)
                some = {k: v for k, v in found.items() if only or not k.startswith("persona: ")}
                cells.append(f"{interval(some.values())} ({len(some)})" if some else "")
        rows.append([str(n), *cells])
    return table(
        ["texts a side", "personas, CAA", "personas, 32 features", "concepts, CAA", "concepts, 32 features"], rows
    )


def choices(lines: Lines) -> str:
    """Which 32 features."""
    labels = {
        "density up to 0.01": "on at most 1 % of tokens, by effect and gain",
        "density up to 1": "any density, by effect and gain",
        "by gain": "on at most 10 %, by gain alone",
        "together": "any density, chosen to read the contrast together",
    }
    rows = [
        ["on at most 10 %, by effect and gain (the default)", interval(lines.shifts("mean_difference").values()), ""]
    ]
    for arm, label in labels.items():
        found = lines.shifts(arm, part="choices")
        rows.append([label, interval(found.values()), difference(found, lines.shifts("mean_difference"))[0]])
    return table(["32 features, mean difference", f"shift at KL {SMALL}", "against the default"], rows)


def personas(said: dict[str, Any]) -> str:
    """AUC of 32 features against the dense probe, set by set."""
    rule, rows = said["rule"], []
    for name, one in said["sets"].items():
        low, high = one[rule]["interval"]
        rows.append([name, str(len(one[rule]["features"])), f"{one[rule]['test']:.3f}", f"{one['dense']['test']:.3f}",
                     f"{one[rule]['ratio']:.3f} [{low:.3f}, {high:.3f}]"])  # fmt: skip
    below = [name for name, one in said["sets"].items() if one[rule]["ratio"] < BAR]
    head = table(["set", "features", "AUC of features", "AUC of dense probe", "ratio"], rows)
    return f"{head}\n\nBelow {BAR}: {', '.join(below) or 'none'}."


def rules(said: dict[str, Any]) -> str:
    """The rules of choosing features, over all sets."""
    rows = []
    for rule in said["dev"]:
        ratios = [one[rule]["ratio"] for one in said["sets"].values()]
        rows.append([rule, f"{said['dev'][rule]:.3f}", f"{np.mean(ratios):.3f}", f"{min(ratios):.3f}",
                     f"{sum(r >= BAR for r in ratios)} of {len(ratios)}"])  # fmt: skip
    return table(["rule", "AUC on dev", "mean ratio on test", "lowest", f"at least {BAR}"], rows)


def cost(said: dict[str, Any]) -> str:
    """Seconds of find and of bare forward passes."""
    rows = [[name, f"{said['median'][name]:.2f}", f"{said['ratio'][name]:.2f}" if name in said["ratio"] else ""]
            for name in said["seconds"]]  # fmt: skip
    return table(
        [f"{said['pairs']} pairs, {said['tokens']:,} tokens", "seconds", "find takes so many times this"], rows
    )
