"""Features, the map, poor servers, keys; nobody is shut out by looks, width or keyboard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from driving import panel_has, search, serious, set_slider, write
from playwright.sync_api import expect

from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Serving
    from tests.serve.page.conftest import Opened


def test_features_can_be_browsed(opened: Opened, world: PlantedWorld) -> None:
    page, feature = opened("/#features"), world.concepts["sea"]
    expect(page.locator(".found li")).not_to_have_count(0)
    page.get_by_label("Search labels").fill("wave")
    page.locator("#view-features").get_by_role("button", name="Search").click()
    page.locator(f".found a[href='#feature/{feature}']").click()
    expect(page.locator("#view-feature h1")).to_contain_text(f"#{feature}")
    expect(page.locator("#view-feature .histogram svg")).to_be_visible()
    headings = page.locator("#view-feature h2").all_inner_texts()
    assert headings[0].startswith("Strongest")
    assert headings[-1].startswith("Random firings")
    near = page.locator("#view-feature section", has_text="Nearest decoder rows").locator("a").first
    there = near.get_attribute("href")
    near.click()
    expect(page).to_have_url(re.compile(f"{there}$"))
    page.go_back()
    expect(page.locator("#view-feature h1")).to_contain_text(f"#{feature}")


def test_the_map_is_moved_by_keys_and_leads_to_features(opened: Opened, world: PlantedWorld) -> None:
    page = opened("/#map")
    page.get_by_label("Search labels and numbers").fill("wave")
    expect(page.locator("#view-map p[role=status]")).to_contain_text("feature")
    page.locator("canvas").focus()
    for key in ("n", "+", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    expect(page.locator("#view-feature h1")).to_contain_text("wave")


def test_without_index_and_sae_the_page_says_so(
    opened: Opened, serving: Serving, world: PlantedWorld, tmp_path: Path
) -> None:
    with serving(world.model, [], tmp_path) as bare:
        page = opened(url=bare.url)
        expect(page.get_by_role("button", name="Find features")).to_be_disabled()
        write(page)
        expect(page.locator("#write")).to_contain_text("only the unsteered model wrote")
        page.goto(bare.url + "/#map")
        expect(page.locator("#view-map")).to_contain_text("no index")
        page.close()


def test_the_key_is_asked_for_once(opened: Opened, serving: Serving, world: PlantedWorld, tmp_path: Path) -> None:
    with serving(world.model, [world.sae], tmp_path, key="a-long-enough-key") as closed:
        page = opened(url=closed.url, expected=401)
        page.get_by_label("Key").fill("wrong")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("Key").fill("a-long-enough-key")
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("#served")).to_contain_text("planted")
        write(page)
        page.close()


@pytest.mark.parametrize("look", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 380])
def test_nobody_is_shut_out(opened: Opened, world: PlantedWorld, look: str, width: int) -> None:
    page = opened(look=look, width=width)
    search(page, "wave")
    panel_has(page, world.concepts["sea"])
    write(page)
    page.get_by_role("button", name="Measure the safe range").click()
    expect(page.locator("#dose .charts svg")).to_have_count(4, timeout=60_000)
    set_slider(page, 1)
    page.locator(".card summary").first.click()
    for place in ("#steer", "#features", f"#feature/{world.concepts['sea']}", "#map"):
        page.evaluate("place => { location.hash = place }", place)
        expect(page.locator("main > div:visible")).to_have_count(1)
        page.wait_for_load_state("networkidle")
        assert serious(page) == [], place
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place


def test_the_look_is_chosen_and_remembered(opened: Opened) -> None:
    page = opened(look="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Look").select_option("dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark


def test_the_panel_works_by_keyboard(opened: Opened) -> None:
    page = opened()
    slider = page.locator(".part input[type=range]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".part input.exact")).to_have_value("0.65")
    assert page.locator(":focus-visible").count() == 1
    page.reload()
    expect(page.locator(".part input.exact")).to_have_value("0.65")
