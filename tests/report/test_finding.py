"""A finding in the terminal and as a page, from its JSON form."""

from __future__ import annotations

import copy
import io
import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from rich.console import Console

from trimtab.report.feature_map import LOOSE, colour, feature_map
from trimtab.report.finding import finding
from trimtab.report.finding_page import finding_page
from trimtab.report.words import reading, verdict


def _feature(index: int, cluster: int | None, word: str) -> dict[str, Any]:
    return {
        "index": index, "site": "model.layers.7.output", "sign": 1, "effect": 1.25, "auc": 0.8, "coverage": 0.5,
        "other_coverage": 0.125, "held_effect": 0.75, "held_auc": 0.7, "gain": 0.1, "output": 0.02,
        "promoted": [" boat", "<b>"], "cluster": cluster, "place": [0.25 * (cluster or 4), 0.5],
        "weight": 2.0 if cluster else None, "words": [word, "tide"],
        "examples": [{"positive": True, "tokens": ["The", f" {word}", " <rose>"], "values": [0.0, 3.0, 0.0]}],
    }  # fmt: skip


def _shift(value: float) -> dict[str, float]:
    return {
        "shift": value, "low": value - 0.1, "high": value + 0.1, "positive": 0.0, "negative": 0.0, "strength": 1.0,
        "kl": 0.3,
    }  # fmt: skip


@pytest.fixture
def data() -> dict[str, Any]:
    candidate = {
        "name": "cluster 1",
        "features": [[3, 4]],
        "method": "equal",
        "weights": {},
        "auc": 0.9,
        "dev": _shift(0.4),
    }
    return {
        "contrast": {
            "name": "sea", "source": "shipped:sea", "digest": "d" * 64, "paired": True, "positive": 40, "negative": 40,
            "duplicates": [["positive", 0, 1]], "near_duplicates": [], "first": [["<i>wave</i>"], ["hill"]],
        },
        "sizes": {"train": 20, "dev": 10, "test": 10},
        "settings": {"choice": None, "kl": 0.3}, "given": ["kl"], "model": "m", "saes": ["s"],
        "positions": [
            {
                "site": "model.layers.7.output", "align": "right", "slots": [-2, -1], "effect": [1.0, 3.0],
                "q": [0.9, 0.01], "counts": [40, 40], "heat": [0.0, 1.0],
            }
        ],
        "features": [[_feature(3, 1, "wave"), _feature(4, 1, "ship"), _feature(9, None, "sand")]],
        "clusterings": [{
            "clusters": [
                {"features": [3, 4], "cosine": 0.6, "stability": 0.9, "name": ["boat"], "words": ["wave", "ship"]}
            ],
            "loose": [9],
        }],
        "candidates": [candidate, {**candidate, "name": "caa", "features": [[]], "method": "caa", "dev": _shift(0.2)}],
        "chosen": "cluster 1", "test": _shift(0.35), "baseline": "caa", "baseline_test": _shift(0.15),
        "reading": [3, 4, 9], "auc": 0.91, "dense_auc": 0.97, "recipe": "r" * 64, "reads": [],
        "lines": [
            {
                "prompt": "So", "factor": f, "sample": 0, "tokens": [" a", w], "strengths": [0.0, s],
                "log_likelihood": -2.5,
            }
            for f, w, s in ((-1.0, " desk", 0.0), (0.0, " day", 1.0), (1.0, " wave", 8.0))
        ],
    }  # fmt: skip


def _terminal(data: dict[str, Any], width: int = 120) -> str:
    console = Console(width=width, highlight=False, record=True, file=io.StringIO())
    for part in finding(data):
        console.print(part)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 110])
def test_numbers_are_never_cut(data: dict[str, Any], width: int) -> None:
    row = next(line for line in _terminal(data, width).splitlines() if re.match(r" *3 +w", line))
    assert row.split()[-7:] == ["/", "12%", "+0.8", "0.70", "+0.100", "0.020", "1"]


def test_the_terminal_shows_reading_beside_writing_and_the_choice(data: dict[str, Any]) -> None:
    text = _terminal(data)
    row = next(line for line in text.splitlines() if line.split()[:2] == ["3", "wave,"])
    assert row.split() == [
        "3", "wave,", "tide", "boat", "<b>", "50%", "/", "12%", "+0.8", "0.70", "+0.100", "0.020", "1",
    ]  # fmt: skip
    assert "+0.350 [+0.250, +0.450] nats per token likelier" in " ".join(text.split())
    assert "▸ cluster 1" in text
    assert "·█  tokens −2 to −1, counted from the end" in text
    assert "1 texts are repeated" in " ".join(text.split())
    towards, plain, away = (text.index(f"  {name}  So") for name in ("towards", "unsteered", "away"))
    assert towards < plain < away
    assert "wave█" in text[towards:plain]


def test_the_feature_that_a_recipe_of_vectors_is_read_with_is_named(data: dict[str, Any]) -> None:
    assert "is read with feature" not in reading(data)
    assert "is read with feature 3, which" in reading({**data, "reads": [3]})


def test_the_page_is_whole_escaped_and_has_the_same_numbers(data: dict[str, Any]) -> None:
    page = finding_page(data, "trimtab find --pairs sea")
    assert "<i>wave</i>" not in page
    assert "&lt;i&gt;wave&lt;/i&gt;" in page
    assert "&lt;rose&gt;" in page
    assert "+0.350 [+0.250, +0.450]" in page
    assert "trimtab find --pairs sea" in page
    assert not re.search(r"(src|href)=", page)
    opened, closed = (re.findall(form, page) for form in (r"<(section|table|article|details|ul)\b", r"</(\w+)>"))
    assert sorted(opened) == sorted(tag for tag in closed if tag in {"section", "table", "article", "details", "ul"})


def test_nothing_found_is_said_and_nothing_is_drawn(data: dict[str, Any]) -> None:
    empty = copy.deepcopy(data)
    empty.update(
        features=[[]], clusterings=[{"clusters": [], "loose": []}], candidates=[], chosen=None, test=None,
        baseline=None, baseline_test=None, reading=[], auc=None, dense_auc=None, recipe=None, lines=[],
    )  # fmt: skip
    assert "so there is no recipe" in " ".join(_terminal(empty).split())
    page = finding_page(empty)
    assert "so there is no recipe" in page
    assert "<svg" not in page
    assert "What it writes" not in page


def test_what_works_and_what_does_not_is_called_so(data: dict[str, Any]) -> None:
    assert "works:" in verdict(data)
    assert "cannot be told from chance:" in verdict({**data, "test": _shift(0.05)})
    assert "works the wrong way:" in verdict({**data, "test": _shift(-0.5)})
    assert "as asked" in verdict({**data, "settings": {"choice": "cluster 1", "kl": 0.3}})


def test_the_map_has_a_dot_for_each_feature_in_its_clusters_colour(data: dict[str, Any]) -> None:
    root = ET.fromstring(feature_map(data["features"][0], data["clusterings"][0]["clusters"]))
    fills = [dot.get("fill") for dot in root.iter() if dot.tag.endswith("circle")]
    assert fills == [colour(1), colour(1), LOOSE]
    assert {text.text for text in root if text.tag.endswith("text")} == {"wave", "ship", "sand"}
    many = [_feature(i, 1 if i < 20 else None, f"w{i}") for i in range(30)]
    cluster = {"features": list(range(20)), "words": ["wave", "ship", "net"]}
    root = ET.fromstring(feature_map(many, [cluster]))
    assert [text.text for text in root if text.tag.endswith("text")] == ["wave, ship"]
