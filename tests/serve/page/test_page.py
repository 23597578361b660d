"""The page, driven as a person does: find, steer, write, measure, verify, keep, share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.page.conftest import Opened

PROMPT = "the cat saw"


def write(page: Page, prompt: str = PROMPT, samples: int = 2, tokens: int = 12) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Samples", exact=True).fill(str(samples))
    page.locator("#write").get_by_label("Tokens").fill(str(tokens))
    page.get_by_role("button", name="Write").click()
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
