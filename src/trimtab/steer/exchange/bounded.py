"""Reading files that strangers made: no more bytes than a vector needs, and no number that is not one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict
from torch import Tensor

from trimtab.errors import FileError, InputError
from trimtab.spec import Spec
from trimtab.steer.tensor_file import check_plain

SIZE_LIMIT = 256 * 2**20  # bytes; 128 blocks of width 16,384 in float32 are 8 MiB
LARGEST = torch.finfo(torch.float32).max


class Foreign(Spec):
    """Base of other projects' JSON objects: the keys that we need are checked, others are ignored."""

    model_config = ConfigDict(extra="ignore")


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises `FileError` when it is missing or larger than any file of vectors."""
    check_plain(path)
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise FileError(f"{path} is larger than {SIZE_LIMIT // 2**20} MiB, which no file of steering vectors is.")
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None


def read_text(path: Path) -> str:
    """The whole file as UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 text ({error.reason} at byte {error.start})") from None


def read_json(path: Path) -> Any:
    """Parsed JSON. NaN and infinities, which are no JSON, are refused."""

    def refuse(constant: str) -> None:
        raise InputError(f"it holds {constant}, which is not a number")

    try:
        return json.loads(read_text(path), parse_constant=refuse)
    except RecursionError:
        raise InputError("its JSON is nested too deeply") from None
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"it is not JSON ({error})") from None


def numbers(values: Sequence[float], what: str) -> Tensor:
    """A list of numbers as a float32 vector [d]."""
    wrong = next((value for value in values if not -LARGEST <= value <= LARGEST), None)
    if wrong is not None:
        raise InputError(f"{what} holds {wrong!r}, which is not a finite float32")
    return torch.tensor(list(values), dtype=torch.float32)
