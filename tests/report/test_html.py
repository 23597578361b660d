from __future__ import annotations

import copy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import InputError
from trimtab.report import tables
from trimtab.report.html import page, write_page

VOID = {"meta", "br", "input"}


class Outline(HTMLParser):
    """Tags in order, all text, and whether every tag was closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "b":
            self.texts.append(data)


def test_every_sample_of_every_arm_is_there(evidence: dict[str, Any]) -> None:
    shown = "".join(Outline(page([evidence], title="t")).texts)
    assert len(evidence["samples"]) == 6 * len(evidence["arms"])
    for sample in evidence["samples"]:
        assert "".join(sample["tokens"]) in shown


def test_steered_stands_beside_unsteered_with_the_highlights_hidden_until_a_button_is_pressed(
    evidence: dict[str, Any],
) -> None:
    text = page([evidence], title="t")
    outline = Outline(text)
    buttons = [attrs for tag, attrs in outline.tags if tag == "button"]
    assert len(buttons) == 6 + 1
    assert {b["aria-pressed"] for b in buttons} == {"false"}
    assert text.count('class="text steered"') == 6
    assert text.count('class="text"') == 6 * (len(evidence["arms"]) - 1)
    assert 'class="show"' not in text
    assert "mark b { display: none" in text
    assert any(tag == "mark" for tag, _ in outline.tags)


def test_no_request_leaves_the_page(evidence: dict[str, Any]) -> None:
    text = page([evidence], title="t")
    assert not [attrs for tag, attrs in Outline(text).tags if tag in ("link", "img", "iframe") or "src" in attrs]
    for outside in ("http:", "https:", "//cdn", "url(", "@import", "fetch(", "XMLHttpRequest"):
        assert outside not in text


def test_everything_is_escaped(evidence: dict[str, Any]) -> None:
    hostile = copy.deepcopy(evidence)
    attack = '<script>alert("x")</script>&'
    hostile["question"] = hostile["reasons"][0] = hostile["made"]["model"] = attack
    hostile["arms"][1]["label"] = hostile["made"]["prompts"][0] = attack
    hostile["samples"][0]["tokens"][0] = hostile["samples"][0]["tokens"][1] = attack
    hostile["samples"][0]["strengths"][0][1] = 1.0
    text = page([hostile, evidence], title=attack, intro=attack, command=attack)
    tags = [tag for tag, _ in Outline(text).tags]
    assert tags.count("script") == 1
    assert "alert(&quot;x&quot;)" in text


def test_control_characters_do_not_reach_the_page(evidence: dict[str, Any]) -> None:
    hostile = copy.deepcopy(evidence)
    hostile["samples"][0]["tokens"][0] = "\x1b[31m\u202e\x00\n"
    text = page([hostile], title="t")
    assert not set(text) & set("\x1b\u202e\x00")
    assert "␛[31m\ufffd␀\n" in text


def test_several_verifications_on_one_page_are_linked(evidence: dict[str, Any]) -> None:
    other = {**evidence, "question": "And the other?", "verdict": "no effect"}
    outline = Outline(page([evidence, other], title="t"))
    ids = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
    links = [attrs["href"] for tag, attrs in outline.tags if tag == "a"]
    assert links == ["#v1", "#v2"]
    assert {"v1", "v2"} <= ids
    assert len([attrs["id"] for _, attrs in outline.tags if "id" in attrs]) == len(ids)


def test_arms_that_missed_the_recipes_cost_are_marked(evidence: dict[str, Any]) -> None:
    changed = copy.deepcopy(evidence)
    for arm in changed["arms"][2:]:
        arm.update(kl=0.5, reached=True)
    assert tables.OTHER_COST not in page([changed], title="t")
    changed["arms"][2].update(kl=0.01, reached=False)
    text = page([changed], title="t")
    assert text.count(tables.OTHER_COST) == 2
    assert f"0.01{tables.OTHER_COST}" in text
    assert f"{tables.OTHER_COST} this arm does not cost what the recipe does" in text


def test_intervals_that_cannot_be_trusted_are_marked(evidence: dict[str, Any]) -> None:
    changed = copy.deepcopy(evidence)
    for one in [*changed["arms"], *changed["contrasts"]]:
        for score in one["scores"].values():
            score["thin"] = False
    assert tables.THIN not in page([changed], title="t")
    changed["arms"][1]["scores"]["log_likelihood"]["thin"] = True
    assert page([changed], title="t").count(tables.THIN) == 3  # in both tables that have it, and explained


def test_what_was_not_run_is_said(evidence: dict[str, Any]) -> None:
    assert set(evidence["made"]["skipped"]) == {"shuffled", "mean-difference", "prompt"}
    text = page([evidence], title="t")
    assert text.count("Not run: ") == 3
    assert "Not run: selected with shuffled labels." in text


def test_unscored_is_written_as_such(evidence: dict[str, Any]) -> None:
    changed = copy.deepcopy(evidence)
    changed["arms"][0]["scores"]["repetition"].update(mean=None, low=None, high=None)
    assert "unscored" in page([changed], title="t")


def test_written_whole_and_like_the_method_of_evidence(evidence: dict[str, Any], tmp_path: Path) -> None:
    from trimtab.evidence.values import Evidence

    target = tmp_path / "deep" / "page.html"
    Evidence.parse(evidence).to_html(target)
    write_page(tmp_path / "other.html", [evidence], title=evidence["question"])
    assert target.read_bytes() == (tmp_path / "other.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "other.html"]


def test_nothing_to_show_or_too_much(evidence: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least one"):
        page([], title="t")
    with pytest.raises(InputError, match="MB"):
        page([evidence], title="t", intro="x" * 2_000_000)


def test_phone_and_dark_are_provided_for(evidence: dict[str, Any]) -> None:
    text = page([evidence], title="t")
    assert "prefers-color-scheme: dark" in text
    assert "@media (max-width" in text
    assert 'name="viewport"' in text
