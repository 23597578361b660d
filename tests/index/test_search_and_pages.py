"""Finding features, and what people see of one."""

from __future__ import annotations

import gzip
import io
import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from trimtab.errors import InputError
from trimtab.index.labels import add_rule_labels
from trimtab.index.page import page, write_page
from trimtab.index.search import find, firing, nearest
from trimtab.index.show import show
from trimtab.index.site import write_site
from trimtab.index.store import Index, open_index
from trimtab.index.tables import write_table
from trimtab.lm.residual import read
from trimtab.report.blocks import narrow
from trimtab.testing.planted import PlantedWorld


@pytest.fixture(scope="module")
def own(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = open_index(shutil.copytree(index.folder, tmp_path_factory.mktemp("own") / "index"))
    add_rule_labels(made)
    return made


def test_words_find_their_features(world: PlantedWorld, own: Index, index: Index) -> None:
    both = {world.concepts["sea"], world.readers["sea"]}
    assert {hit.feature for hit in find(own, "BOAT wave")[:2]} == both
    assert {hit.feature for hit in find(index, "boat")[:2]} == both  # without labels, too
    best = find(own, "boat")[0]
    assert best.feature == world.concepts["sea"]  # it promotes the word as well as firing on it
    assert "fires on it" in best.why
    assert "promotes it" in best.why
    assert best.label.startswith(own.labels([best.feature])[best.feature][0].text)
    assert find(own, "nowhere") == []
    assert len(find(own, "the", most=3)) == 3
    with pytest.raises(InputError, match="Nothing to search"):
        find(own, "  ")


def test_a_feature_with_every_word_comes_first(world: PlantedWorld, own: Index) -> None:
    hits = find(own, "boat song")
    assert all(hit.why.count(";") == 1 for hit in hits[: sum(";" in hit.why for hit in hits)])
    assert hits == sorted(hits, key=lambda h: (-h.why.count(": "), -h.score, h.feature))


def test_firing_in_a_text(world: PlantedWorld, own: Index) -> None:
    text = "the flame found a boat ."
    tokens, found = firing(world.model, world.sae, text, own, most=30)
    assert tokens == text.split()
    ids = torch.tensor([world.model.encode(text)])
    f = world.sae.encode(read(world.model, ids, [world.site])[world.site][0])[1:]
    assert {one.feature for one in found} == set((f.amax(0) > 0).nonzero()[:, 0].tolist())
    for one in found:
        assert list(one.values) == f[:, one.feature].tolist()
        top = own.feature(one.feature).max
        assert one.share == (None if top == 0 else pytest.approx(max(one.values) / top))
    fire = next(one for one in found if one.feature == world.concepts["fire"])
    assert [v > 0 for v in fire.values] == [False, True, False, False, False, False]


def test_nearest_rows(world: PlantedWorld, own: Index) -> None:
    hits = nearest(world.sae, world.directions["music"], own, most=3)
    assert hits[0].feature == world.concepts["music"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-5)
    assert hits[0].score >= hits[1].score >= hits[2].score
    with pytest.raises(InputError, match="width 32"):
        nearest(world.sae, torch.ones(3))
    with pytest.raises(InputError, match="not zero"):
        nearest(world.sae, torch.zeros(32))


def test_terminal_view_shows_numbers_blocks_and_examples(world: PlantedWorld, own: Index) -> None:
    feature = own.feature(world.concepts["fire"])
    console = Console(width=200, record=True, file=io.StringIO())
    for part in show(feature, examples=2):
        console.print(part)
    text = console.export_text()
    assert feature.labels[0].text in text
    assert f"{feature.count:,} times" in text
    assert f"max {feature.max:.4g}" in text
    assert "Strongest" in text
    assert "Between" in text
    lines = [narrow(e.tokens, e.values, feature.max).plain for e in feature.examples if e.kind == "top"]
    assert [line in text for line in lines] == [True, True, False, False]
    assert "█" in lines[0]


class Outline(HTMLParser):
    """Tags that are opened and closed, and every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "link", "input", "br", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag == "rect" or self.open.pop() == tag


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


def test_a_page_is_whole_and_fetches_nothing(own: Index, world: PlantedWorld, tmp_path: Path) -> None:
    write_page(tmp_path / "f.html", own, world.concepts["fire"])
    text = (tmp_path / "f.html").read_text()
    assert outline(text).addresses == ["data:,"]
    assert "http" not in text
    feature = own.feature(world.concepts["fire"])
    marks = sum(value > 0 for e in feature.examples for value in e.values)
    assert len(re.findall("<mark", text)) == marks
    assert len(re.findall('class="peak"', text)) == len(feature.examples)
    assert text.count("<rect") == len(feature.histogram)


def test_texts_cannot_become_markup(own: Index) -> None:
    from dataclasses import replace

    feature = own.feature(0)
    evil = replace(feature.examples[0], tokens=("<script>alert(1)</script>", "\u202e"), values=(1.0, 0.0), at=0)
    text = page(replace(feature, examples=(evil,)), "a <b> c")
    assert "<script>" not in text
    assert "\u202e" not in text
    outline(text)


def test_a_feature_that_never_fired_has_a_page(own: Index) -> None:
    from dataclasses import replace

    none: Any = dict.fromkeys(("histogram", "words", "partners", "sources", "examples"), ())
    text = page(replace(own.feature(0), count=0, density=0.0, mean=None, max=0.0, **none), "about")
    assert "0 % of tokens" in text
    assert "Nearest decoder rows" in text
    outline(text)


def test_a_site_has_every_feature_and_its_links_lead_somewhere(own: Index, tmp_path: Path) -> None:
    place = np.random.default_rng(0).random((own.features, 2)).astype(np.float32)
    every = list(range(own.features))
    group = np.arange(own.features) % 3 - 1
    write_table(own.folder / "map.parquet", {"feature": every, "x": place[:, 0], "y": place[:, 1], "cluster": group})
    site = write_site(own, tmp_path / "site")
    listed = script(site / "features.js", "FEATURES")
    assert [row[0] for row in listed] == every
    pages = {}
    for path in (site / "data").iterdir():
        number, packed = re.fullmatch(r'shard\((\d+),"(.*)"\)\n', path.read_text()).groups()  # type: ignore[union-attr]
        assert path.stem == number
        some = json.loads(gzip.decompress(b64decode(packed)))
        assert {int(key) // 16 for key in some} == {int(number)}
        pages |= {int(key): value for key, value in some.items()}
    assert sorted(pages) == every
    for number, (_, inside) in pages.items():
        assert f"Feature {number}" in inside
        assert set(outline(inside).addresses) <= {f"#{other}" for other in every}
    assert any("href" in inside for *_, inside in pages.values())
    points = script(site / "points.js", "POINTS")
    assert points["feature"] == every
    assert points["x"] == [round(10_000 * float(x)) for x in place[:, 0]]
    assert len(points["names"]) == 2
    for path in site.glob("*.html"):
        text = path.read_text()
        assert "http" not in text
        for address in outline(text.split("<script>")[0] + "</body></html>").addresses:
            assert address == "data:," or (path.parent / address).is_file()
    with pytest.raises(InputError, match="exists already"):
        write_site(own, site)


def script(path: Path, name: str) -> Any:
    return json.loads(path.read_text().removeprefix(f"const {name} = ").strip().rstrip(";"))
