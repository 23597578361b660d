"""Sliders, texts and their colours, doses; what is stopped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from driving import PROMPT, panel_has, search, set_slider, texts, write
from playwright.sync_api import expect

from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.page.conftest import Opened


def test_texts_are_those_that_generate_writes(opened: Opened, world: PlantedWorld) -> None:
    page, feature = opened(), world.concepts["sea"]
    expect(page.locator(".card").first).to_be_visible()
    search(page, "wave")
    panel_has(page, feature)
    set_slider(page, 1.5)
    expect(page.locator(".pending:visible")).to_have_count(0)
    write(page)
    for side, recipe in (("unsteered", None), ("steered", Recipe.add(world.sae, {feature: 1.5}))):
        wanted = generate(world.model, PROMPT, recipe, samples=2, max_new_tokens=12, seed=1)
        assert texts(page, side) == [one.text.strip() for one in wanted]
    expect(page.locator(".part .pending")).to_be_hidden()
    set_slider(page, -1)
    expect(page.locator(".part .pending")).to_be_visible()
    expect(page.locator("#write .pending")).to_be_visible()


def test_tokens_are_coloured_by_what_the_unsteered_model_reads(opened: Opened, world: PlantedWorld) -> None:
    page = opened()
    search(page, "wave")
    panel_has(page, world.concepts["sea"])
    set_slider(page, 2)
    write(page, samples=3, tokens=20)
    steered = page.locator("figure.steered .new")
    words = {one.strip() for one in steered.locator("mark").all_inner_texts()}
    assert words
    assert words <= set(world.words["sea"])
    written = [word for text in texts(page, "steered") for word in text.split() if word in world.words["sea"]]
    assert steered.locator("mark").count() == len(written)
    page.locator("figure.steered .text").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tip")).to_contain_text("of the largest on record")
    share = float(page.locator("mark.at").get_attribute("data-share") or 0)
    assert 0.5 < share < 1.5


def test_a_feature_is_switched_off_or_held(opened: Opened, world: PlantedWorld) -> None:
    page, feature = opened(), world.concepts["sea"]
    search(page, "wave")
    panel_has(page, feature)
    edit = page.get_by_label("What is done with")
    for name, recipe in (
        ("hold it at", Recipe.clamp(world.sae, {feature: 1.0})), ("switch it off", Recipe.ablate(world.sae, [feature]))
    ):  # fmt: skip
        edit.select_option(label=name)
        write(page, tokens=15)
        wanted = generate(world.model, PROMPT, recipe, samples=2, max_new_tokens=15, seed=1)
        assert texts(page, "steered") == [one.text.strip() for one in wanted]
    expect(page.locator(".part input[type=range]")).to_have_count(0)


def test_the_dose_is_drawn_on_the_slider_and_as_a_curve(opened: Opened, world: PlantedWorld) -> None:
    page = opened()
    search(page, "wave")
    panel_has(page, world.concepts["sea"])
    page.get_by_role("button", name="Measure the safe range").click()
    expect(page.locator("#dose .charts svg")).to_have_count(4, timeout=60_000)
    said = page.locator(".part .tools").inner_text()
    low, high = (float(n.replace("−", "-")) for n in re.findall(r"safe from (\S+) to (\S+)", said)[0])
    assert low < 0 < high
    track, safe = (page.locator(f".part {one}").bounding_box() for one in (".band", ".band .safe"))
    assert track is not None
    assert safe is not None
    far = float(page.locator(".part input[type=range]").get_attribute("max") or 0)
    assert safe["width"] / track["width"] == pytest.approx((high - low) / (2 * far), abs=0.02)
    page.get_by_role("button", name="Measure all that is on the panel").click()
    expect(page.locator("#dose h3")).to_contain_text("everything on the panel", timeout=60_000)


def test_a_job_is_stopped_here_and_from_another_tab(opened: Opened) -> None:
    page, other = opened(), opened(expected=409)
    page.locator("#verify").get_by_label("Samples of each").fill("16")
    page.get_by_role("button", name="Verify", exact=True).click()
    expect(page.locator("#verify .progress")).to_be_visible()
    other.get_by_role("button", name="Verify", exact=True).click()
    expect(other.locator("#verify .trouble")).to_contain_text("is running; wait or delete it")
    other.get_by_role("button", name="Stop that one").click()
    expect(page.locator("#verify")).to_contain_text("Stopped.", timeout=60_000)
    page.get_by_role("button", name="Verify", exact=True).click()
    page.locator("#verify .progress button").click()
    expect(page.locator("#verify")).to_contain_text("Stopped.", timeout=60_000)
    expect(page.get_by_role("button", name="Verify", exact=True)).to_be_enabled()


def test_writing_is_stopped_and_problems_are_told_as_the_server_says_them(opened: Opened) -> None:
    page = opened(expected=400)
    page.get_by_label("Prompt", exact=True).fill(PROMPT)
    page.locator("#write").get_by_label("Samples", exact=True).fill("8")
    page.locator("#write").get_by_label("Tokens", exact=True).fill("150")
    page.locator("#write button.main").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#write .row .soft").first).to_contain_text("stopped")
    page.get_by_label("Prompt", exact=True).fill("the cat " * 50)
    page.locator("#write").get_by_label("Tokens", exact=True).fill("10")
    page.locator("#write button.main").click()
    expect(page.locator("#write .trouble")).to_contain_text("the limit is 60")
    damaged = opened("/#state=AAAA")
    expect(damaged.locator("#trouble")).to_contain_text("The link is damaged")
    expect(damaged.locator(".part")).to_have_count(1)
