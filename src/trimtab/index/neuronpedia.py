"""Neuronpedia's export shape, both ways: our index as an export folder, and an export or a feature's JSON as features.

    features/batch-N.jsonl.gz       a row a feature: logit lens tokens, histogram, density
    activations/batch-N.jsonl.gz    a row an example
    explanations/batch-N.jsonl.gz   a row a label

Indices are strings and files follow their lexicographic order, so feature i is not in batch i // 1024. What has no
place in that shape (token ids, documents, partners, sources, counts of tokens) is not written; the density gives the
count back when the number of tokens is known. Nothing here touches the network; see `trimtab.index.neuronpedia_api`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.files import write_folder
from trimtab.index.records import Example, Feature, Label, Lens
from trimtab.index.sample import BIN_EDGES
from trimtab.index.store import Index

BATCH = 1024
_LENGTH = 25  # of the identifiers

Row = dict[str, Any]


@dataclass(frozen=True)
class Export:
    """Features of one source as Neuronpedia has them, by index. `batches` are read when they are asked for."""

    folder: Path
    model_id: str
    source_id: str

    def features(self) -> Iterator[Feature]:
        """Every feature, in ascending order of index. Holds the whole export in memory."""
        activations = _by_index(self._rows("activations"))
        explanations = _by_index(self._rows("explanations"))
        rows = sorted(self._rows("features"), key=_index)
        for row in rows:
            index = _index(row)
            yield parse({**row, "activations": activations.get(index, []), "explanations": explanations.get(index, [])})

    def labels(self) -> dict[int, list[Label]]:
        """The labels of every feature that has one."""
        return {i: [_label(row) for row in rows] for i, rows in _by_index(self._rows("explanations")).items()}

    def _rows(self, kind: str) -> Iterator[Row]:
        for path in sorted((self.folder / kind).glob("batch-*.jsonl*")):
            yield from read_rows(path)


def open_export(folder: str | Path, *, expect: str | None = None) -> Export:
    """Open a folder of features/, activations/ and explanations/ batches (gzipped or not).

    `expect` is the SAE's Neuronpedia id "modelId/sourceId"; `MismatchError` when the export is of another. `FileError`
    when there are no batches.
    """
    folder = Path(folder)
    paths = [path for kind in ("features", "explanations") for path in sorted((folder / kind).glob("batch-*.jsonl*"))]
    first = next((row for path in paths for row in read_rows(path)), None)
    if first is None:
        raise FileError(f"{folder} is not a Neuronpedia export: it has no features/batch-*.jsonl.gz.")
    found = Export(folder, str(first["modelId"]), str(first["layer"]))
    if expect is not None and expect != f"{found.model_id}/{found.source_id}":
        raise MismatchError(f"{folder} holds {found.model_id}/{found.source_id}, not {expect}.")
    return found


def read_rows(path: Path) -> Iterator[Row]:
    """The JSON objects of one batch file."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)
    except (OSError, EOFError, ValueError) as error:
        raise FileError(f"{path} is damaged: {error}") from None


def parse(row: Row) -> Feature:
    """A feature from its JSON: one row of an export joined with its activations and explanations, or what
    `GET /api/feature/{modelId}/{sourceId}/{index}` returns. `FileError` when it is neither.
    """
    try:
        examples = tuple(_example(one) for one in row.get("activations") or ())
        values = [float(v) for v in row.get("freq_hist_data_bar_values") or ()]
        heights = row.get("freq_hist_data_bar_heights") or ()
        step = values[1] - values[0] if len(values) > 1 else 0.0
        uppers = [*values[1:], _upper(values[-1], step)] if values else []
        return Feature(
            index=_index(row),
            count=round(sum(heights)),
            density=float(row.get("frac_nonzero") or 0.0),
            mean=None if row.get("trimtabMean") is None else float(row["trimtabMean"]),
            max=float(row.get("maxActApprox") or max((e.value for e in examples), default=0.0)),
            histogram=tuple((a, b, round(n)) for a, b, n in zip(values, uppers, heights, strict=True)),
            words=(),
            words_error=0,
            partners=(),
            partners_error=0,
            sources=(),
            examples=examples,
            lens=_lens(row),
            labels=tuple(_label(one) for one in row.get("explanations") or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"Not a feature in Neuronpedia's shape: {type(error).__name__} {error}.") from None


def write_export(index: Index, folder: str | Path, *, model_id: str, source_id: str) -> Path:
    """Write every feature of `index` as an export folder that does not exist yet; returns it.

    `source_id` is "{layer}-{sourceSet}", such as "7-trimtab". The same index gives the same bytes.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder.")
    head, _, rest = source_id.partition("-")
    if not (head.isdigit() and rest):
        raise InputError(f"The source id {source_id!r} is not of the form LAYER-SET, such as 7-trimtab.")
    order = sorted(range(index.features), key=str)
    with write_folder(folder) as part:
        for number, start in enumerate(range(0, len(order), BATCH)):
            found = [index.feature(i) for i in order[start : start + BATCH]]
            rows: dict[str, list[Row]] = {"features": [], "activations": [], "explanations": []}
            for feature in found:
                rows["features"].append(feature_row(feature, model_id, source_id))
                rows["activations"] += activation_rows(feature, model_id, source_id)
                rows["explanations"] += explanation_rows(feature, model_id, source_id)
            for kind, many in rows.items():
                _write_rows(part / kind / f"batch-{number}.jsonl.gz", many)
    return folder


def feature_row(feature: Feature, model_id: str, source_id: str) -> Row:
    """The Neuron row of one feature. `trimtabMean` (over firing tokens) is ours; importers pass over it."""
    lens = feature.lens
    layer, _, source_set = source_id.partition("-")
    return {
        "modelId": model_id,
        "layer": source_id,
        "index": str(feature.index),
        "sourceSetName": source_set,
        "maxActApprox": feature.max,
        "hasVector": False,
        "hookName": f"blocks.{layer}.hook_resid_post",
        "vectorDefaultSteerStrength": feature.max,
        "pos_str": [text for text, _ in lens.promoted] if lens else [],
        "pos_values": [value for _, value in lens.promoted] if lens else [],
        "neg_str": [text for text, _ in lens.suppressed] if lens else [],
        "neg_values": [value for _, value in lens.suppressed] if lens else [],
        "topkCosSimIndices": [other for other, _ in lens.neighbours] if lens else [],
        "topkCosSimValues": [value for _, value in lens.neighbours] if lens else [],
        "frac_nonzero": feature.density,
        "freq_hist_data_bar_values": [low for low, _, _ in feature.histogram],
        "freq_hist_data_bar_heights": [count for _, _, count in feature.histogram],
        "trimtabMean": feature.mean,
        "trimtabReadsWrites": lens.reads_writes if lens else None,
        "trimtabOutputScore": lens.output_score if lens else None,
    }


def activation_rows(feature: Feature, model_id: str, source_id: str) -> list[Row]:
    """A row for each example. The strongest have no bin; a random one has that of the whole range."""
    rows = []
    for number, one in enumerate(feature.examples):
        low, high, share = one.low, one.high, None
        if one.kind == "random":
            low, high, share = 0.0, feature.max, 1.0
        elif low is not None and high is not None:
            inside = sum(n for a, _, n in feature.histogram if low <= a < high)
            share = inside / max(1, feature.count)
        rows.append(
            {
                "id": identifier(model_id, source_id, feature.index, number),
                "modelId": model_id,
                "layer": source_id,
                "index": str(feature.index),
                "dataSource": one.source,
                "dataIndex": f"{one.document}/{one.context}/{one.position}",
                "tokens": list(one.tokens),
                "values": list(one.values),
                "maxValue": max(one.values),
                "minValue": min(one.values),
                "maxValueTokenIndex": one.values.index(max(one.values)),
                "qualifyingTokenIndex": one.at,
                "binMin": low,
                "binMax": high,
                "binContains": share,
            }
        )
    return rows


def explanation_rows(feature: Feature, model_id: str, source_id: str) -> list[Row]:
    """A row for each label."""
    return [
        {
            "id": identifier(model_id, source_id, feature.index, f"label {number}"),
            "modelId": model_id,
            "layer": source_id,
            "index": str(feature.index),
            "description": label.text,
            "typeName": f"trimtab_{label.method.partition(' ')[0]}",
            "explanationModelName": label.method,
            "scores": [] if label.score is None else [{"value": label.score, "explanationScoreTypeName": "detection"}],
        }
        for number, label in enumerate(feature.labels)
    ]


def identifier(*parts: object) -> str:
    """25 characters that look like a cuid and depend on `parts` alone, so that a second import changes nothing."""
    return "c" + hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[: _LENGTH - 1]


def _example(row: Row) -> Example:
    tokens, values = tuple(map(str, row["tokens"])), tuple(map(float, row["values"]))
    if len(tokens) != len(values) or not tokens:
        raise ValueError(f"{len(tokens)} tokens with {len(values)} values")
    low, high, share = row.get("binMin"), row.get("binMax"), row.get("binContains")
    at = row.get("qualifyingTokenIndex")
    at = int(row.get("maxValueTokenIndex") or values.index(max(values))) if at is None else int(at)
    kind = "random" if share == 1 and low == 0 else "top" if low is None or high is None or high < 0 else "band"
    place = str(row.get("dataIndex") or "").split("/")
    document, context, position = map(int, place) if len(place) == 3 else (-1, -1, -1)
    return Example(
        kind=kind,
        low=low if kind == "band" else None,
        high=high if kind == "band" else None,
        value=values[at],
        source=str(row.get("dataSource") or ""),
        document=document,
        context=context,
        position=position,
        at=at,
        ids=(),
        tokens=tokens,
        values=values,
    )


def _lens(row: Row) -> Lens | None:
    def pairs(names: str, values: str) -> tuple[tuple[Any, float], ...]:
        return tuple(zip(row.get(names) or (), row.get(values) or (), strict=True))

    found = (
        pairs("pos_str", "pos_values"),
        pairs("neg_str", "neg_values"),
        pairs("topkCosSimIndices", "topkCosSimValues"),
    )
    if not any(found):
        return None
    return Lens(*found, row.get("trimtabReadsWrites") or "unscored", row.get("trimtabOutputScore"))


def _label(row: Row) -> Label:
    scores = [one["value"] for one in row.get("scores") or () if isinstance(one, dict) and one.get("value") is not None]
    method = str(row.get("explanationModelName") or row.get("typeName") or "neuronpedia")
    ours = str(row.get("typeName") or "").startswith("trimtab_")
    return Label(
        str(row["description"]), method if ours else f"neuronpedia {method}", scores[0] if ours and scores else None
    )


def _upper(low: float, step: float) -> float:
    """The upper edge of the last bar: the next edge of our own scale, else a bar as wide as the first."""
    return next((2 ** (-20 + (i + 1) / 4) for i in range(len(BIN_EDGES) - 1) if 2 ** (-20 + i / 4) == low), low + step)


def _index(row: Row) -> int:
    return int(row["index"])


def _by_index(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(_index(row), []).append(row)
    return found


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 5, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8") as out,
    ):
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
