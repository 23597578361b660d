"""Rows of records from a file (jsonl, json, csv, tsv, parquet, txt, gzipped or not) or a Hugging Face dataset."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

from trimtab.errors import FileError, InputError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")


def rows_of(source: str | Path, split: str = "train") -> list[dict[str, Any]]:
    """All rows of `source` as dicts; lines of a `.txt` file come as {"text": line}, blank lines dropped.

    A name that is no file on disk and has no known suffix is opened as a Hugging Face dataset (split `split`).
    """
    path = Path(source)
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if path.is_dir() or (suffix not in SUFFIXES and not path.exists()):
        return _hub_rows(str(source), split)
    if suffix not in SUFFIXES:
        raise InputError(f"{path} is of an unknown kind. Valid: {', '.join(SUFFIXES)}, each also with .gz.")
    if not path.is_file():
        raise FileError(f"No such file: {path}")
    if suffix == ".parquet":
        return _parquet_rows(path)
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise FileError(f"{path} cannot be read as text: {error}") from None
    if suffix == ".txt":
        return [{"text": line.strip()} for line in text.splitlines() if line.strip()]
    if suffix in (".csv", ".tsv"):
        return list(csv.DictReader(io.StringIO(text), delimiter="\t" if suffix == ".tsv" else ","))
    return _json_rows(text, path, lines=suffix == ".jsonl")


def _json_rows(text: str, path: Path, *, lines: bool) -> list[dict[str, Any]]:
    try:
        if lines:
            rows = []
            for number, line in enumerate(text.splitlines(), start=1):  # noqa: B007 (named in the error)
                if line.strip():
                    rows.append(json.loads(line))
        else:
            number, rows = 1, json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError(f"{path}, line {number}: not valid JSON ({error.msg}).") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FileError(f"{path} must hold one JSON object a line, or a list of objects.")
    return rows


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise FileError(f"{path} is not a parquet file: {error}") from None
    return rows


def _hub_rows(name: str, split: str) -> list[dict[str, Any]]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the library raises many kinds, all meaning that this name cannot be had
        raise FileError(f"{name} is no file here and cannot be opened as a Hugging Face dataset: {error}") from None
    return [dict(row) for row in loaded]
