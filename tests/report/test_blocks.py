from __future__ import annotations

import io

import pytest
from rich.console import Console

from trimtab.errors import InputError
from trimtab.report import blocks

TOKENS = ["Once", " upon", " a", " sea", ",", "\n", "the", " waves"]
STRENGTHS = [0.0, 0.0, 0.5, 7.0, 1.0, 0.0, 0.0, 3.5]


def test_levels_are_the_integer_part_of_seven_times_the_share() -> None:
    assert [blocks.level(s, 7.0) for s in (0.0, 0.99, 1.0, 3.5, 6.99, 7.0, 70.0)] == [0, 0, 1, 3, 6, 7, 7]
    assert [ord(blocks.block(s, 8.0)) for s in (0.1, 8.0)] == [0x2581, 0x2588]
    assert blocks.block(0.0, 8.0) == ""
    assert blocks.block(0.0, 0.0) == ""


def test_golden_narrow() -> None:
    """Written by hand from the rule; to renew, work the levels out again: 0.5 -> 0, 7 -> 7, 1 -> 1, 3.5 -> 3."""
    assert blocks.narrow(TOKENS, STRENGTHS).plain == "Once upon a▁ sea█,▂↵the waves▄"


def test_golden_wide() -> None:
    expected = [
        "Once upon a sea,↵the",
        "          ▁ ███▂",
        "waves",
        "▄▄▄▄▄",
    ]
    assert blocks.wide(TOKENS, STRENGTHS, width=20).plain.split("\n") == expected


def test_wide_lines_up_under_double_width_characters() -> None:
    above, below = blocks.wide(["海", "の", " sea"], [1.0, 0.0, 1.0]).plain.split("\n")
    assert above == "海の sea"
    assert below == "██   ███"


def test_a_given_maximum_makes_texts_comparable() -> None:
    assert blocks.narrow(["a"], [1.0], maximum=7.0).plain == "a▂"
    assert blocks.narrow(["a"], [1.0]).plain == "a█"


def test_control_and_reordering_characters_cannot_reach_the_terminal() -> None:
    hostile = ["\x1b[31m", "\x07", "\u202e", "\u2028", "\x7f", "\x85", "\ud800", "\t", "\r"]
    for text in (blocks.narrow(hostile, [1.0] * 9).plain, blocks.wide(hostile, [0.0] * 9).plain.split("\n")[0]):
        assert not set(text) & set("\x1b\x07\u202e\u2028\x7f\x85\ud800\t\r")
        assert "␛[31m" in text
        assert "␇" in text


def _printed(colour: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=colour, color_system="truecolor" if colour else None, width=80)
    console.print(blocks.narrow(TOKENS, STRENGTHS))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_colour_only_where_the_terminal_has_it() -> None:
    assert "\x1b[" in _printed(colour=True)
    assert "48;2;240;130;20" in _printed(colour=True)
    assert _printed(colour=False) == "Once upon a▁ sea█,▂↵the waves▄\n"


def test_bad_strengths_are_refused() -> None:
    with pytest.raises(InputError, match="2 tokens but 1 strengths"):
        blocks.narrow(["a", "b"], [1.0])
    with pytest.raises(InputError, match="finite"):
        blocks.narrow(["a"], [float("nan")])


def test_nothing_to_draw() -> None:
    assert blocks.narrow([], []).plain == ""
    assert blocks.wide([], []).plain == ""
