"""The one kind of work: a unit is done completely or not at all, and doing it twice gives the same bytes.

A job names its units and says how a worker opens what it holds warm. What a unit makes depends on nothing but the job
and the unit, so it does not matter which worker does it, in which order, or how often.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

Tell = Callable[[Any], None]
"""Called with news while a unit is being done: local runs only, and of no fixed kind."""


@dataclass(frozen=True)
class Unit:
    """`id` is stable and part of file names; `work` is what the unit is about, as plain values that can travel."""

    id: str
    work: Any = None


@dataclass(frozen=True)
class Part:
    """What a unit makes: the content of each of its files, and facts for the ledger (JSON, the same each time)."""

    files: Mapping[str, bytes]
    facts: Mapping[str, Any] = field(default_factory=dict)


Do = Callable[[Unit, Tell], Part]
Open = Callable[[], AbstractContextManager[Do]]
"""How a worker begins: a model is opened, packed, held until the context ends. It must pickle to run on Ray."""
