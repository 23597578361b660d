"""Labels by rule: the words are those that tell, and they say how they stand to the firing token."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trimtab.index.records import Lens, Word
from trimtab.index.rules import Pool, Window, choose, matches, names, pool, rule_label, windows
from trimtab.index.store import Index
from trimtab.testing.planted import PlantedWorld

FILLER = [f" w{i}" for i in range(200)]
NOTHING = Pool({}, 100)


def texts(n: int, seed: int, put: list[str], fires: int | None) -> list[Window]:
    """Windows of ten random words with `put` in the middle; the token at `fires` of `put` fires."""
    draw = random.Random(seed)
    found = []
    for _ in range(n):
        tokens = [draw.choice(FILLER) for _ in range(5)] + put + [draw.choice(FILLER) for _ in range(5)]
        found.append(Window(tuple(tokens), tuple(i == 5 + (fires or 0) for i in range(len(tokens)))))
    return found


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (" Fire", {"fire", "(capital)"}),
        ("ing", {"ing", "(rest of a word)"}),
        (" 7", {"7", "(number)"}),
        (",", {"(comma)"}),
        (";", {"(semicolon)"}),
        ("\n\n", {"(line break)"}),
        ("  ", {"(spaces)"}),
        (" été", {"été", "(letters beyond a-z)"}),
        ("a,b;c", {"abc", "(rest of a word)"}),
        ("\ufffd", {"(part of a character)"}),
    ],
)
def test_names_of_tokens(token: str, expected: set[str]) -> None:
    assert names(token) == expected


@pytest.mark.parametrize(
    ("label", "tokens", "expected"),
    [
        ("fire, sea → hot", [" a", " Fire"], True),
        ("fire, sea → hot", [" hot"], False),
        ("after of → x", [" of", " gold"], True),
        ("after of → x", [" gold", " of"], False),  # nothing comes after it
        ("fire; near film, (number)", [" a", " 7"], True),
        ("fire; after of; near film", [" a", " b"], False),
        ("(never fires) → x", [" never"], False),
        ("near", [" near"], True),
    ],
)
def test_a_label_matches_by_its_words(label: str, tokens: list[str], expected: bool) -> None:
    assert matches(label, tokens) is expected


def test_words_on_which_it_fires_come_from_the_counts_of_the_whole_corpus() -> None:
    """Half of its firing is on a word that is everywhere, which tells nothing; a quarter each on two rare ones."""
    words = [Word(1, " the", 50, 5000), Word(2, " fire", 25, 26), Word(3, "Fire", 5, 5), Word(4, " sea", 20, 40)]
    assert choose(words, 100, 100_000, [], NOTHING) == {"fire": "on", "sea": "on"}


@pytest.mark.parametrize(
    ("put", "fires", "how"),
    [([" of", " x"], 1, "after"), ([" film"], 0, "on"), ([" film", " a", " b", " c"], 3, "near")],
)
def test_words_around_say_how_they_stand(put: list[str], fires: int, how: str) -> None:
    """The word is the only one that all the examples have and that others do not."""
    mine = texts(20, 0, put, fires)
    everywhere = {name: np.ones(100, dtype=bool) for word in (" x", " a", " b", " c") for name in names(word)}
    chosen = choose([], 20, 1000, mine, Pool(everywhere, 100))
    assert chosen == {put[0].strip(): how}


def test_what_others_have_too_is_not_named() -> None:
    mine = texts(20, 0, [" the"], 0)
    filler = {word.strip(): np.arange(100) < 20 for word in FILLER}
    for share, expected in ((50, {"the": "on"}), (95, {})):
        assert choose([], 20, 1000, mine, Pool({**filler, "the": np.arange(100) < share}, 100)) == expected


def test_the_parts_of_a_label() -> None:
    lens = Lens(((" hot", 2.0), ("\n", 1.5), (" Hot", 1.0), (" burning", 0.5)), (), (), "unscored", None)
    chosen = {"fire": "on", "of": "after", "film": "near", "sea": "on"}
    assert rule_label([], lens, chosen) == "fire, sea; after of; near film → hot, burning"
    assert rule_label([Word(1, " the", 5, 5)], lens, {}) == "the → hot, burning"


def test_windows_and_pool_are_cut_from_examples(world: PlantedWorld, index: Index) -> None:
    feature = world.concepts["fire"]
    found = windows(index, [feature, 5])
    assert set(found) == {feature, 5}
    assert len(found[feature]) == len({e.context for e in index.feature(feature).examples})
    for window in found[feature]:
        assert len(window.tokens) == len(window.fires) <= 24
        on = {t for t, fires in zip(window.tokens, window.fires, strict=True) if fires}
        assert on
        assert on <= set(world.words["fire"])
    others = pool(index)
    assert others.size == min(400, index.query("select count(*) as n from examples where kind = 'random'")[0]["n"])
    assert others.has["the"].mean() > 0.5 > others.has["flame"].mean() > 0
