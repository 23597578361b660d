"""Texts from files, and the contexts (token sequences of bounded length) that a model reads them in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trimtab.errors import FileError, InputError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".parquet")


@dataclass(frozen=True)
class Text:
    """One document: its text, the source it names (or the file's name), and its number in the stream.

    `read`: about how many bytes of the sources were read when it came, of their `total_bytes`.
    """

    text: str
    source: str
    document: int
    read: float = 0.0


@dataclass(frozen=True)
class Context:
    """One piece of a document, as the model reads it: token ids with BOS first where the model has one.

    `read`: as that of its `Text`.
    """

    ids: tuple[int, ...]
    source: str
    document: int
    read: float = 0.0


def iter_texts(sources: Sequence[str], *, field: str = "text", split: str = "train") -> Iterator[Text]:
    """Every distinct text of `sources`, in order: `.jsonl`, `.txt` (one text a paragraph), `.parquet`, each plain
    or gzipped, or the name of a Hugging Face dataset. Exact duplicates are left out (16 bytes kept for each text).

    Raises `FileError` for a missing or damaged file, `InputError` for a field that is not there.
    """
    if not sources:
        raise InputError("No texts: name at least one file or dataset.")
    seen: set[bytes] = set()
    count = before = 0
    for source in sources:
        for text, origin, read in _rows(source, field, split):
            key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key in seen or not text.strip():
                continue
            seen.add(key)
            yield Text(text, origin, count, before + read)
            count += 1
        before += total_bytes([source]) or 0


def total_bytes(sources: Sequence[str]) -> int | None:
    """The size of all sources on disk, of which `Text.read` is a part; None when one of them is not a file."""
    paths = [Path(source) for source in sources]
    return sum(path.stat().st_size for path in paths) if all(path.is_file() for path in paths) else None


def _rows(source: str, field: str, split: str) -> Iterator[tuple[str, str, float]]:
    """(text, what it names as its source, bytes of the file read until now)."""
    path = Path(source)
    if not path.name.endswith(SUFFIXES):
        if path.exists():
            raise FileError(f"{source} is not a text file that trimtab reads; valid: {', '.join(SUFFIXES)}")
        yield from _dataset(source, field, split)
        return
    if not path.is_file():
        raise FileError(f"No such file: {source}")
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path, field)
        else:
            with path.open("rb") as raw, _open(path, raw) as stream:
                jsonl = ".jsonl" in path.name
                found = _jsonl(stream, path, field) if jsonl else ((t, path.name) for t in _paragraphs(stream))
                yield from ((*row, raw.tell()) for row in found)
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise FileError(f"{source} is damaged: {error}") from None


def _open(path: Path, raw: IO[bytes]) -> IO[str]:
    return io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw, encoding="utf-8")


def _paragraphs(stream: Iterable[str]) -> Iterator[str]:
    lines: list[str] = []
    for line in stream:
        if line.strip():
            lines.append(line)
        elif lines:
            yield "".join(lines).strip()
            lines = []
    if lines:
        yield "".join(lines).strip()


def _jsonl(stream: Iterable[str], path: Path, field: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise FileError(f"{path}, line {number} is not JSON: {error}") from None
        yield _field(row, field, f"{path}, line {number}"), str(row.get("source", path.name))


def _field(row: Any, field: str, where: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get(field), str):
        keys = ", ".join(map(repr, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(f"{where} has no text field {field!r}; it has: {keys}")
    return str(row[field])


def _parquet(path: Path, field: str) -> Iterator[tuple[str, str, float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise FileError(f"{path} is not a Parquet file: {error}") from None
    if field not in file.schema_arrow.names:
        raise InputError(f"{path} has no column {field!r}; it has: {', '.join(file.schema_arrow.names)}")
    columns = [field, *(["source"] if "source" in file.schema_arrow.names and field != "source" else [])]
    each = path.stat().st_size / max(1, file.metadata.num_rows)
    done = 0
    for batch in file.iter_batches(batch_size=1000, columns=columns):
        for row in batch.to_pylist():
            done += 1
            yield str(row[field] or ""), str(row.get("source") or path.name), done * each


def _dataset(name: str, field: str, split: str) -> Iterator[tuple[str, str, float]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(name, split=split, streaming=True)
    except Exception as error:  # the hub's client raises many kinds; all mean that the dataset cannot be had
        raise FileError(
            f"No file {name!r}, and no dataset of that name can be opened ({type(error).__name__}). "
            f"Files end in {', '.join(SUFFIXES)}."
        ) from error
    for number, row in enumerate(rows):
        yield _field(row, field, f"dataset {name}, row {number}"), name, 0.0


def iter_contexts(
    texts: Iterable[Text],
    encode: Callable[[list[str]], list[list[int]]],
    *,
    bos: int | None,
    length: int,
    shortest: int = 16,
) -> Iterator[Context]:
    """Cut each text into pieces of at most `length` tokens, BOS first in each (where the model has one).

    `encode` turns texts into ids without special tokens. Pieces of fewer than `shortest` tokens are dropped:
    they say little about a model that reads with context.
    """
    head = () if bos is None else (bos,)
    room = length - len(head)
    if room < 1:
        raise InputError(f"A context of {length} tokens leaves no room for text.")
    batch: list[Text] = []

    def cut(batch: list[Text]) -> Iterator[Context]:
        for text, ids in zip(batch, encode([t.text for t in batch]), strict=True):
            for start in range(0, len(ids), room):
                piece = ids[start : start + room]
                if len(piece) >= min(shortest, room):
                    yield Context((*head, *piece), text.source, text.document, text.read)

    for text in texts:
        batch.append(text)
        if len(batch) == 256:
            yield from cut(batch)
            batch = []
    yield from cut(batch)


def batches(contexts: Sequence[Context], *, tokens: int) -> Iterator[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Right-padded batches of at most `tokens` positions, shortest contexts first so that little is padding.

    Yields (indices into `contexts`, ids [rows, seq] int64, mask [rows, seq] int64).
    """
    import torch

    order = sorted(range(len(contexts)), key=lambda i: (len(contexts[i].ids), i))
    rows: list[int] = []
    for index in [*order, None]:
        if rows and (index is None or len(contexts[index].ids) * (len(rows) + 1) > tokens):
            longest = len(contexts[rows[-1]].ids)
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(rows):
                n = len(contexts[i].ids)
                ids[row, :n] = torch.tensor(contexts[i].ids)
                mask[row, :n] = 1
            yield rows, ids, mask
            rows = []
        if index is not None:
            rows.append(index)
