"""What a person does on the page."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

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
