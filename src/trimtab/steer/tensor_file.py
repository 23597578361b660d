"""Reading a safetensors file that a stranger may have made: bounded, and one sentence for every way to be wrong."""

from __future__ import annotations

import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from trimtab.errors import FileError

HEADER_LIMIT = 16 * 2**20  # bytes of JSON, far more than any recipe has


def check_plain(path: Path) -> None:
    """Refuse what is no plain file: a device or a pipe would give bytes for ever, or none."""
    if not path.exists():
        raise FileError(f"No such file: {path}")
    if not path.is_file():
        raise FileError(f"{path} cannot be read: it is not a plain file.")


def read_tensors(path: Path, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors; `kind` is what the file should be, for the sentence of a `FileError`.

    Memory is bounded by the size of the file: a header that promises more is refused before anything is read.
    """
    check_plain(path)
    try:
        with path.open("rb") as stream:
            first = stream.read(8)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}.") from None
    if len(first) < 8 or struct.unpack("<Q", first)[0] > min(HEADER_LIMIT, path.stat().st_size - 8):
        raise FileError(
            f"{path} is not a {kind} file: its header is cut off or larger than {HEADER_LIMIT // 2**20} MiB."
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise FileError(f"{path} is not a {kind} file: {(str(error) or 'unreadable').splitlines()[0]}.") from None
