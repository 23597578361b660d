"""The whole road from a contrast to a shared link; recipe files; links with nonsense in them."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from driving import PROMPT, panel_has, search, set_slider, texts, write
from playwright.sync_api import expect

from trimtab.steer.generate import generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

if TYPE_CHECKING:
    from tests.serve.conftest import Server
    from tests.serve.page.conftest import Opened


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


def test_a_link_with_nonsense_in_it_breaks_nothing(opened: Opened, world: PlantedWorld) -> None:
    good = {"name": "good", "members": [[world.concepts["sea"], 1]], "strength": 1.5, "edit": "rm", "dose": {"safe": 1}}
    parts = [
        None, 3, {"name": "a"}, {"name": "b", "members": [None], "strength": 1}, {**good, "strength": "much"},
        {"name": "c", "members": [], "recipe": "../../jobs", "strength": 1}, good,
    ]  # fmt: skip
    text = json.dumps({"parts": parts, "write": {"prompt": 7, "samples": 2, "tokens": 12}, "find": None, "verify": []})
    packer = zlib.compressobj(wbits=-15)
    packed = base64.urlsafe_b64encode(packer.compress(text.encode()) + packer.flush()).decode().rstrip("=")
    page = opened(f"/#state={packed}")
    expect(page.locator(".part")).to_have_count(1)
    write(page)
    wanted = generate(
        world.model, PROMPT, Recipe.add(world.sae, {world.concepts["sea"]: 1.5}), samples=2, max_new_tokens=12, seed=1
    )
    assert texts(page, "steered") == [one.text.strip() for one in wanted]
