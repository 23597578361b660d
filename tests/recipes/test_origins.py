"""Both replays of origins, in the planted world: two runs give the same page, and what is planted is found there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.find.pairs import ContrastSet
from trimtab.index.build import IndexSpec, build
from trimtab.testing.planted import PlantedWorld, planted_world

RECIPES = Path(__file__).parents[2] / "recipes" / "origins"


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(RECIPES), *sys.path])


@pytest.mark.usefixtures("recipes")
def test_origin_a_twice(world: PlantedWorld, tmp_path: Path) -> None:
    import origin_a
    import origin_a_page

    pairs = ContrastSet("sea", tuple(world.texts("sea", 48)), tuple(world.texts(None, 48)))
    few, others, held = origin_a.parts(pairs, 10, 0)
    assert len(few) == 10
    assert not {*others.positive, *others.negative} & {*held.positive, *held.negative}

    def run(folder: Path) -> str:
        study = origin_a.Study(
            model=world.model, saes=(world.sae,), few=few, others=others, many=None, held=held, measured=None,
            questions=None, skip=0, seed=0, folder=folder,
        )  # fmt: skip
        found: dict[str, Any] = origin_a.replay(study)
        ways = {one["name"]: one for one in found["ways"]}
        assert ways["theirs"]["shifts"][0][1] > 0.1  # the concept is planted, so their road leads to it
        assert ways["a random direction"]["shifts"][0][2] < ways["theirs"]["shifts"][0][1]
        words = {word for one in found["clusters"]["clusters"] for word in one["words"]}
        assert words & set(world.words["sea"])
        return origin_a_page.page(found)

    page = run(tmp_path / "a")
    assert page == run(tmp_path / "b")
    for title in ("Their steps", "common scalar", "their regression", *(f"Suspicion {n}" for n in range(1, 6))):
        assert title in page
    (tmp_path / "a" / "texts.json").unlink()  # a run that was killed goes on, and ends with the same page
    assert page == run(tmp_path / "a")


@pytest.mark.usefixtures("recipes")
def test_origin_b_twice(world: PlantedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import four_features

    texts = tmp_path / "texts.jsonl"
    lines = [json.dumps({"text": text}) for text in (*world.texts("fire", 40), *world.texts(None, 40))]
    texts.write_text("\n".join(lines), encoding="utf-8")
    build(world.model, world.sae, [str(texts)], tmp_path / "index", IndexSpec())
    monkeypatch.setattr(four_features, "open_pair", lambda model, sae: (world.model, world.sae))
    feature = world.concepts["fire"]

    def run(name: str) -> str:
        words = ["--index", str(tmp_path / "index"), "--features", str(feature), "--samples", "3"]
        four_features.main([*words, "--out", str(tmp_path / name), "--page", str(tmp_path / f"{name}.md")])
        return (tmp_path / f"{name}.md").read_text(encoding="utf-8")

    page = run("a")
    assert page == run("b") == run("a")
    assert (tmp_path / "img" / f"origin-b-{feature}.svg").is_file()
    # its strongest examples are mostly of one word, and it stands for five
    assert "`ember`, on which 10 of its 20 strongest examples peak" in page
    assert "only 25% of all firings are on `ember`" in page
    assert page.count("<details>") == 5  # four texts, and the examples


@pytest.mark.usefixtures("recipes")
def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    from common import claim

    claim(tmp_path, {"seed": 0})
    claim(tmp_path, {"seed": 0})
    with pytest.raises(SystemExit, match="other settings"):
        claim(tmp_path, {"seed": 1})


@pytest.mark.usefixtures("recipes")
def test_what_is_measured_is_not_learned_from(tmp_path: Path) -> None:
    from agreeableness import many_sets

    rows = [
        {
            "question": f"Would you say that sentence {i} is yours?",
            "statement": f"Statement number {i} about {'abcdefghij'[i % 10] * (3 + i)}",
            "answer_matching_behavior": " Yes" if i % 2 else " No",
            "answer_not_matching_behavior": " No" if i % 2 else " Yes",
        }
        for i in range(80)
    ]
    file = tmp_path / "eval.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    learned, measured = many_sets(str(file), 40, 0, held=10)
    first = {row["statement"] for row in rows[:40]}
    assert len(measured.positive) == len(measured.negative) == 10
    assert not {*measured.positive, *measured.negative} & ({*learned.positive, *learned.negative} | first)
