"""Where a feature fires, drawn in the terminal with block elements U+2581 to U+2588.

The level of a token is int(7 * strength / max strength), as in the TinyStories feature reports by Ehrenborg (2024).
Colour is added as styles of `rich.text.Text`: a console without colour drops it and the blocks remain.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from trimtab.errors import InputError
from trimtab.spec import finite

BLOCKS = "▁▂▃▄▅▆▇█"

_PALE, _DEEP = (252, 231, 190), (240, 130, 20)
_JOINERS = "\u200c\u200d"


def block(strength: float, maximum: float) -> str:
    """The block element for `strength`; empty where the feature does not fire. Strengths above `maximum` are full."""
    return BLOCKS[level(strength, maximum)] if strength > 0 else ""


def level(strength: float, maximum: float) -> int:
    """int(7 * strength / maximum), within 0 to 7."""
    if finite(maximum, "The largest strength") <= 0:
        return 0
    return max(0, min(7, int(7 * finite(strength, "A strength") / maximum)))


def visible(token: str) -> str:
    """`token` on one line, with nothing that could move the cursor or reorder text.

    Newline, return and tab become arrows, other control characters their control pictures, invisible format
    characters (bidirectional marks) and broken code units a replacement mark.
    """
    return "".join(_visible(c) for c in token)


def _visible(char: str) -> str:
    if char in "\n\r\t":
        return {"\n": "↵", "\r": "↵", "\t": "⇥"}[char]
    kind = unicodedata.category(char)
    if kind == "Cc":
        return chr(0x2400 + ord(char)) if ord(char) < 32 else "␡" if ord(char) == 127 else "\ufffd"
    if (kind == "Cf" and char not in _JOINERS) or kind in ("Cs", "Zl", "Zp"):
        return "\ufffd"
    return char


def narrow(tokens: Sequence[str], strengths: Sequence[float], maximum: float | None = None) -> Text:
    """One running text; the block follows its token. `maximum` defaults to the largest of `strengths`."""
    top = _checked(tokens, strengths, maximum)
    line = Text()
    for token, strength in zip(tokens, strengths, strict=True):
        style = _style(strength, top)
        space = token[: len(token) - len(token.lstrip(" "))]
        line.append(space)
        line.append(visible(token[len(space) :]) + block(strength, top), style=style)
    return line


def wide(tokens: Sequence[str], strengths: Sequence[float], maximum: float | None = None, *, width: int = 100) -> Text:
    """Two rows for each line of text: the tokens, and under each token that fires its block, as long as the token."""
    top = _checked(tokens, strengths, maximum)
    rows: list[tuple[Text, Text]] = []
    used = 0
    for token, strength in zip(tokens, strengths, strict=True):
        shown = visible(token)
        cells = cell_len(shown)
        if not rows or (used + cells > width and used):
            rows.append((Text(), Text()))
            shown = shown.lstrip(" ") if len(rows) > 1 else shown
            cells, used = cell_len(shown), 0
        style = _style(strength, top)
        lead = len(shown) - len(shown.lstrip(" ")) if shown.strip(" ") else 0
        rows[-1][0].append(shown[:lead])
        rows[-1][0].append(shown[lead:], style=style)
        rows[-1][1].append(" " * lead + (block(strength, top) or " ") * (cells - lead), style=None)
        used += cells
    out = Text("\n").join(Text("\n").join([above, _trim(below)]) for above, below in rows)
    return out


def _trim(row: Text) -> Text:
    row.rstrip()
    return row


def _checked(tokens: Sequence[str], strengths: Sequence[float], maximum: float | None) -> float:
    if len(tokens) != len(strengths):
        raise InputError(f"{len(tokens)} tokens but {len(strengths)} strengths: each token needs its strength.")
    top = max((finite(s, "A strength") for s in strengths), default=0.0) if maximum is None else maximum
    return finite(top, "The largest strength")


def _style(strength: float, top: float) -> Style | None:
    if strength <= 0 or top <= 0:
        return None
    share = min(1.0, strength / top)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_PALE, _DEEP, strict=True))
    return Style.parse(f"black on rgb({red},{green},{blue})")
