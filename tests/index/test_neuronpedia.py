"""Our index in Neuronpedia's export shape, and back."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.index.labels import add_labels
from trimtab.index.neuronpedia import Export, open_export, parse, write_export
from trimtab.index.records import Feature, Label
from trimtab.index.store import Index, open_index

COLUMNS = {
    "features": {"modelId", "layer", "index", "sourceSetName", "maxActApprox", "hookName", "hasVector", "pos_str",
                 "pos_values", "neg_str", "neg_values", "frac_nonzero", "freq_hist_data_bar_values",
                 "freq_hist_data_bar_heights", "topkCosSimIndices", "topkCosSimValues", "vectorDefaultSteerStrength"},
    "activations": {"id", "modelId", "layer", "index", "dataSource", "tokens", "values", "maxValue", "minValue",
                    "maxValueTokenIndex", "qualifyingTokenIndex", "binMin", "binMax", "binContains"},
    "explanations": {"id", "modelId", "layer", "index", "description", "typeName", "explanationModelName"},
}  # fmt: skip


@pytest.fixture(scope="module")
def own(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Index:
    made = open_index(shutil.copytree(index.folder, tmp_path_factory.mktemp("own") / "index"))
    add_labels(made, {3: Label("three", "rule", 0.75), 11: Label("elf \u2192 \u00fc", "llm m", None)})
    return made


@pytest.fixture(scope="module")
def export(own: Index, tmp_path_factory: pytest.TempPathFactory) -> Export:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trimtab.index.neuronpedia.BATCH", 8)
        return open_export(
            write_export(own, tmp_path_factory.mktemp("export") / "out", model_id="m", source_id="1-planted")
        )


def kept(feature: Feature) -> Feature:
    """What the shape has a place for."""
    examples = tuple(replace(e, ids=()) for e in feature.examples)
    empty: dict = {"words": (), "words_error": 0, "partners": (), "partners_error": 0, "sources": ()}
    return replace(feature, **empty, examples=examples)


def test_round_trip_of_every_feature(own: Index, export: Export) -> None:
    assert (export.model_id, export.source_id) == ("m", "1-planted")
    assert list(export.features()) == [kept(own.feature(i)) for i in range(own.features)]
    assert export.labels() == {3: [Label("three", "rule", 0.75)], 11: [Label("elf \u2192 \u00fc", "llm m", None)]}


def test_files_have_the_documented_shape(export: Export) -> None:
    order = []
    for kind, columns in COLUMNS.items():
        paths = sorted((export.folder / kind).iterdir())
        assert [path.name for path in paths] == [f"batch-{n}.jsonl.gz" for n in range(4)]
        for path in paths:
            for line in gzip.decompress(path.read_bytes()).decode().splitlines():
                row = json.loads(line)
                assert columns <= set(row)
                assert isinstance(row["index"], str)
                assert len(row.get("id", "c" * 25)) == 25
                if kind == "features":
                    order.append(row["index"])
                if kind == "activations":
                    assert len(row["tokens"]) == len(row["values"])
                    assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"]
    assert order == sorted(order)
    assert order != sorted(order, key=int)


def test_features_may_lie_in_any_batch(export: Export, tmp_path: Path) -> None:
    shutil.copytree(export.folder, tmp_path / "turned")
    names = sorted((tmp_path / "turned" / "activations").iterdir())
    data = [path.read_bytes() for path in names]
    for path, other in zip(names, reversed(data), strict=True):
        path.write_bytes(other)
    assert list(open_export(tmp_path / "turned").features()) == list(export.features())


def test_same_index_same_bytes(own: Index, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_export(own, tmp_path / name, model_id="m", source_id="1-planted")
    for path in (tmp_path / "a").rglob("*.gz"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_refusals(own: Index, export: Export, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match=r"holds m/1-planted, not other/3-x"):
        open_export(export.folder, expect="other/3-x")
    with pytest.raises(FileError, match="not a Neuronpedia export"):
        open_export(tmp_path)
    with pytest.raises(InputError, match="exists already"):
        write_export(own, tmp_path, model_id="m", source_id="1-x")
    with pytest.raises(InputError, match="LAYER-SET"):
        write_export(own, tmp_path / "x", model_id="m", source_id="planted")
    with pytest.raises(FileError, match="Neuronpedia's shape"):
        parse({"index": "3", "activations": [{"tokens": ["a"], "values": []}]})
