"""The page, driven as a person does: find, steer, write, measure, verify, keep, share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving
    from tests.serve.page.conftest import Opened

PROMPT = "the cat saw"


def write(page: Page, prompt: str = PROMPT, samples: int = 2, tokens: int = 12) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Samples", exact=True).fill(str(samples))
    page.locator("#write").get_by_label("Tokens", exact=True).fill(str(tokens))
    page.locator("#write button.main").click()
    expect(page.locator("#said")).to_have_text("All texts are written.")


def texts(page: Page, side: str) -> list[str]:
    """What was written, without the prompt."""
    return [one.strip() for one in page.locator(f"figure.{side} .new").all_inner_texts()]


def set_slider(page: Page, value: float, place: int = 0) -> None:
    page.locator(".part input.exact").nth(place).fill(str(value))
    page.locator(".part input.exact").nth(place).press("Enter")


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {n['html'][:120]}" for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"]
    ]


def search(page: Page, words: str) -> None:
    page.get_by_label("Words: what it fires on").fill(words)
    page.locator("#find").get_by_role("button", name="Search").click()
    expect(page.locator("#find p[role=status]")).to_contain_text(f"“{words}”")


def panel_has(page: Page, feature: int) -> None:
    """Only this feature is on the panel."""
    while page.locator(".part").count():
        page.locator(".part").first.get_by_role("button", name="Remove").click()
    page.locator(f".card[data-feature='{feature}'] .add").click()
    expect(page.locator(".part")).to_have_count(1)


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


def test_from_a_contrast_to_a_shared_link(opened: Opened, world: PlantedWorld, server: Server) -> None:
    page = opened()
    page.get_by_text("By a contrast", exact=True).click()
    page.get_by_label("Texts that show it").fill("\n".join(world.texts("fire", 30)))
    page.get_by_label("Texts that do not").fill("\n".join(world.texts(None, 30)))
    page.get_by_role("button", name="Find features").click()
    expect(page.locator(f".card[data-feature='{world.concepts['fire']}']")).to_be_visible()
    expect(page.locator(".card.recipe")).to_contain_text("On texts that chose nothing")
    while page.locator(".part").count():
        page.locator(".part").first.get_by_role("button", name="Remove").click()
    page.get_by_role("button", name="Add it to the panel").click()
    set_slider(page, 2)
    write(page)
    steered = texts(page, "steered")
    assert steered != texts(page, "unsteered")

    page.locator("#verify").get_by_label("Prompts").fill("the cat saw\na dog found")
    page.locator("#verify").get_by_label("Samples of each").fill("3")
    page.locator("#verify").get_by_label("Tokens").fill("15")
    page.get_by_role("button", name="Verify", exact=True).click()
    expect(page.locator(".verdict-word")).to_be_visible(timeout=60_000)
    assert {"unsteered", "steered", "random direction"} <= set(page.locator(".arms tbody th").all_inner_texts())
    with page.expect_popup() as report:
        page.get_by_role("link", name="The whole report").click()
    expect(report.value.locator(".badge")).to_have_text(page.locator(".verdict-word").inner_text())
    report.value.get_by_role("button", name="Show where").click()
    expect(report.value.locator("article.show")).not_to_have_count(0)
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download the report").click()
    assert "<!doctype html>" in Path(downloaded.value.path()).read_text("utf-8")

    page.get_by_label("Save the panel as").fill("found-fire")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#keep p[role=status]")).to_contain_text("Saved as found-fire")
    assert "found-fire" in server.get("/api/recipes").json()["recipes"]
    page.get_by_role("button", name="Copy a link").click()
    link = page.get_by_label("The link").input_value()
    assert page.evaluate("navigator.clipboard.readText()") == link

    other = opened(link.removeprefix(server.url))
    assert other.get_by_label("Prompt", exact=True).input_value() == PROMPT
    assert other.locator("input.exact").input_value() == "2"
    assert other.get_by_label("Texts that show it").input_value().split("\n") == world.texts("fire", 30)
    other.locator("#write button.main").click()
    expect(other.locator("#said")).to_have_text("All texts are written.")
    assert texts(other, "steered") == steered


def test_a_recipe_is_saved_used_and_taken_elsewhere(opened: Opened, world: PlantedWorld, server: Server) -> None:
    page = opened(expected=409)
    search(page, "song")
    panel_has(page, world.concepts["music"])
    set_slider(page, 1.5)
    write(page)
    before = texts(page, "steered")
    page.get_by_label("Save the panel as").fill("music")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#keep p[role=status]")).to_contain_text("Saved as music")
    with page.expect_download() as downloaded:
        page.get_by_role("button", name="Download the file").click()
    assert Recipe.load(downloaded.value.path()) == Recipe.add(world.sae, {world.concepts["music"]: 1.5})
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#keep .trouble")).to_contain_text("There is a recipe 'music' already; delete it first.")
    page.locator(".part").get_by_role("button", name="Remove").click()
    page.locator("#keep input[type=file]").set_input_files(
        files=[
            {"name": "Other.recipe.safetensors", "mimeType": "", "buffer": Path(downloaded.value.path()).read_bytes()}
        ]
    )
    expect(page.locator(".part")).to_contain_text("recipe other")
    write(page)
    assert texts(page, "steered") == before
    expect(page.locator("figure.steered mark").first).to_be_attached()


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
