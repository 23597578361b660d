"""The page in a real Chromium, on a planted model. Run by `make test-page`, not by `make test`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from trimtab.index.lens import add_lens
from trimtab.index.map import Points
from trimtab.index.store import Index
from trimtab.index.tables import write_table
from trimtab.testing.planted import PlantedWorld

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.serve.conftest import Server, Serving

# Without the network flags Chromium looks for its maker's servers at every start.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
Opened = Callable[..., Page]


@pytest.fixture(scope="session")
def index(index: Index, world: PlantedWorld) -> Index:
    """The index of all tests with output scores and a map."""
    scores = {**dict.fromkeys(world.concepts.values(), 0.5), **dict.fromkeys(world.readers.values(), 0.0)}
    add_lens(world.model, world.sae, index, output_scores=scores, tokens=5, neighbours=3)
    live = np.array([row["feature"] for row in index.query("from features where count > 0 order by feature")])
    place = np.linspace(0, 1, len(live), dtype=np.float32)
    points = Points(live.astype(np.int32), place, place[::-1].copy(), (live % 3 - 1).astype(np.int32))
    write_table(index.folder / "map.parquet", vars(points))
    return index


@pytest.fixture(scope="module")
def server(
    world: PlantedWorld, index: Index, serving: Serving, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with serving(world.model, [world.sae], tmp_path_factory.mktemp("recipes"), index=index) as one:
        yield one


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "Chromium is not installed: see `make test-page`"
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Browser, server: Server) -> Iterator[Opened]:
    """Opens the page in a new profile. At the end: nothing on the console, no request to anyone but the server."""
    contexts, trouble = [], []

    def open_(path: str = "/", *, width: int = 1280, look: str = "light", url: str = "", expected: int = 0) -> Page:
        address = url or server.url
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=look, reduced_motion="reduce"
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        contexts.append(context)
        page = context.new_page()

        def refused(text: str) -> bool:  # what Chromium writes about an answer that the test asks for
            return f"status of {expected}" in text

        page.on("console", lambda message: refused(message.text) or trouble.append(message.text))
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda r: r.url.startswith((address, "blob:")) or trouble.append(r.url))
        page.goto(address + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert trouble == []
