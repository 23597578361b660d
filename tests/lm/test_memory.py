"""Memory that was freed goes back to the system."""

from __future__ import annotations

import os
from pathlib import Path

from trimtab.lm.memory import give_back


def resident() -> int:
    """Bytes of this process in main memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_below_what_is_still_used_is_given_back() -> None:
    """Blocks freed under one that stays: glibc keeps them for itself, unless it is asked."""
    blocks = [bytearray(b"x" * 50_000) for _ in range(2000)]
    full = resident()
    del blocks[:-1]
    give_back()
    assert resident() < full - 80_000_000
    assert len(blocks) == 1
