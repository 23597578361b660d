"""What is exported and read again does the same; what a format cannot carry is refused.

`TRIMTAB_EXAMPLES=10000 pytest tests/steer/exchange` tries as many random recipes of every kind; by default a few.
"""

from __future__ import annotations

import os
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from trimtab.errors import FileError, InputError, UnsupportedError
from trimtab.spec import Scope, Site
from trimtab.steer.compile import added_vector
from trimtab.steer.exchange.formats import FORMATS, export, read
from trimtab.steer.exchange.steering_vectors import from_object
from trimtab.steer.recipe import Recipe

WIDTH, FEATURES = 16, 40
EVERYWHERE = Scope(bos=True)
VECTORS = ("gguf", "tensors", "steering-vectors", "vllm-lens", "neuronpedia-vector")
ONE_SITE = ("neuronpedia-vector",)
NAMES = {"neuronpedia-vector": "m", "neuronpedia-steer": "m/1-set", "lm-eval": "release/id"}

tries = settings(
    max_examples=int(os.environ.get("TRIMTAB_EXAMPLES", "12")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
numbers = st.floats(-1e3, 1e3, width=32).filter(lambda value: value == 0 or abs(value) > 1e-3)
vectors = st.lists(numbers, min_size=WIDTH, max_size=WIDTH).filter(any).map(torch.tensor)
strengths = numbers.filter(bool)
feature_strengths = st.dictionaries(st.integers(0, FEATURES - 1), strengths, min_size=1, max_size=4)
scopes = st.sampled_from([EVERYWHERE, Scope()])


@st.composite
def adding(draw, make_sae, layers: tuple[int, ...] = (1, 2, 5)) -> Recipe:
    """A recipe of vectors and of features that are added, at blocks other than the first."""
    recipe = Recipe()
    for _ in range(draw(st.integers(1, 3))):
        layer, scope = draw(st.sampled_from(layers)), draw(scopes)
        if draw(st.booleans()):
            recipe += Recipe.vector(draw(vectors), layer, draw(strengths), scope=scope)
        else:
            unit = draw(st.sampled_from(["raw", "max_act"]))
            recipe += Recipe.add(make_sae(layer=layer), draw(feature_strengths), unit=unit, scope=scope)
    return recipe


def added(recipe: Recipe) -> dict[Site, Tensor]:
    """Site -> all that is added there, straight from the definition."""
    found: dict[Site, Tensor] = {}
    for edit in recipe.edits:
        found[edit.spec.site] = found.get(edit.spec.site, torch.zeros(WIDTH)) + added_vector(edit)
    return {site: vector for site, vector in found.items() if vector.any()}


def through(recipe: Recipe, format: str, sae=None, name: str | None = None) -> tuple[Recipe, tuple[str, ...]]:
    """Written and read again, in a folder that holds nothing else afterwards; and what was said on writing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{FORMATS[format].suffix}"
        notes = export(recipe, path, format, name or NAMES.get(format))
        files = {path.name, "x.json"} if format == "tensors" else {path.name}
        assert {file.name for file in Path(folder).iterdir()} == files
        return read(path, format, sae)[0], notes


@pytest.mark.parametrize("format", VECTORS)
@tries
@given(data=st.data())
def test_what_is_added_comes_back_exactly(format: str, data, make_sae) -> None:
    recipe = data.draw(adding(make_sae, (2,) if format in ONE_SITE else (1, 2, 5)))
    wanted = added(recipe)
    if not wanted:
        return
    back, notes = through(recipe, format)
    found = added(back)
    assert set(found) == set(wanted)
    for site, vector in wanted.items():
        torch.testing.assert_close(found[site], vector, rtol=1e-6, atol=1e-4)
    scopes_back = {edit.spec.scope for edit in back.edits}
    if format == "tensors":
        assert scopes_back == {edit.spec.scope for edit in recipe.edits}
    else:
        assert scopes_back == {EVERYWHERE}
        assert any("BOS" in note for note in notes) == any(not edit.spec.scope.bos for edit in recipe.edits)
        again, nothing_lost = through(back, format)
        assert again == back
        assert not nothing_lost
    assert back.about.model_fingerprint is None


@tries
@given(data=st.data())
def test_tensors_carry_projections_norms_and_scopes(data, make_sae, tiny, h) -> None:
    scope = data.draw(
        st.builds(Scope, generated=st.booleans(), window=st.just((1, None)), exclude=st.just((4,)), bos=st.booleans())
    )
    recipe = Recipe.vector(data.draw(vectors), 1, data.draw(strengths), unit="norm", scope=scope)
    recipe += Recipe.project(data.draw(vectors), 1, data.draw(numbers))
    recipe += Recipe.add(make_sae(layer=2), data.draw(feature_strengths), unit="norm")
    recipe = recipe.made_for(tiny)
    back, _ = through(recipe, "tensors")
    assert back.about.model_fingerprint == tiny.fingerprint
    for mine, theirs in zip(recipe.compile(tiny), back.compile(tiny), strict=True):
        assert (mine.site, mine.scope) == (theirs.site, theirs.scope)
        change = mine.delta(h)
        torch.testing.assert_close(theirs.delta(h), change, rtol=1e-4, atol=1e-5 * float(change.abs().max()))


@pytest.mark.parametrize("format", ["neuronpedia-steer", "lm-eval"])
@tries
@given(data=st.data())
def test_features_come_back_with_the_same_push(format: str, data, make_sae) -> None:
    sae = make_sae()
    values = data.draw(feature_strengths)
    if format == "lm-eval":
        values = dict([values.popitem()])
    recipe = Recipe.add(sae, values, unit=data.draw(st.sampled_from(["raw", "max_act"])), scope=EVERYWHERE)
    back, _ = through(recipe, format, sae)
    assert set(back.features) == set(values)
    (site,) = recipe.sites
    torch.testing.assert_close(added(back)[site], added(recipe)[site], rtol=1e-5, atol=1e-3)


def carried_by(recipe: Recipe, format: str, path: Path) -> bool:
    """Whether it was written; if not, one sentence was said and nothing is there."""
    said = ""
    try:
        export(recipe, path, format, NAMES.get(format))
    except (UnsupportedError, InputError) as error:
        said = str(error)
    assert "\n" not in said
    assert path.exists() == (not said)
    return not said


@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_cannot_carry_is_refused(format: str, make_sae, tmp_path) -> None:
    sae, path = make_sae(), tmp_path / f"x{FORMATS[format].suffix}"
    dense = torch.ones(WIDTH)
    refused = {
        "clamp": Recipe.clamp(sae, {3: 1.0}),
        "scale": Recipe.scale(sae, {3: 2.0}),
        "ablate": Recipe.ablate(sae, [3]),
        "min": Recipe.min(sae, {3: 1.0}),
        "max": Recipe.max(sae, {3: 1.0}),
        "rescaling SAE": Recipe.add(make_sae(normalisation="layer_norm"), {3: 1.0}),
        "nothing": Recipe(),
        "two widths": Recipe.vector(dense, 1) + Recipe.vector(torch.ones(WIDTH + 1), 1)
        if format != "tensors"
        else Recipe(),
        "strength 0": Recipe.vector(dense, 1, 0.0) if format in VECTORS else Recipe.vector(dense, 1),
    }
    if format != "tensors":
        refused |= {
            "project": Recipe.project(dense, 1),
            "norm": Recipe.vector(dense, 1, unit="norm"),
            "feature norm": Recipe.add(sae, {3: 1.0}, unit="norm"),
            "window": Recipe.add(sae, {3: 1.0}, scope=Scope(window=(0, 4))),
            "prompt only": Recipe.add(sae, {3: 1.0}, scope=Scope(generated=False)),
            "exclude": Recipe.add(sae, {3: 1.0}, scope=Scope(exclude=(2,))),
            "embeddings": Recipe.vector(dense, -1),
        }
    if format == "gguf":
        refused["block 0"] = Recipe.vector(dense, 0)
    if format in (*ONE_SITE, "neuronpedia-steer", "lm-eval"):
        refused["two sites"] = Recipe.add(sae, {3: 1.0}) + Recipe.add(make_sae(layer=2), {3: 1.0})
    if format == "lm-eval":
        refused["two features"] = Recipe.add(sae, {3: 1.0, 4: 1.0})
    tensors_keep = {"strength 0"} if format == "tensors" else set()
    written = {name for name, recipe in refused.items() if carried_by(recipe, format, path)}
    assert written == tensors_keep
    assert carried_by(Recipe.add(sae, {3: 1.0}), format, path)


def test_gguf_is_what_the_gguf_package_reads(make_sae, tmp_path) -> None:
    from gguf import GGUFReader

    recipe = Recipe.vector(torch.arange(16.0), 3, 2.0, scope=EVERYWHERE) + Recipe.add(make_sae(layer=7), {3: 1.0})
    path = tmp_path / "x.gguf"
    export(recipe, path, "gguf", "gemma3")
    reader = GGUFReader(path)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "gemma3"
    assert reader.fields["controlvector.layer_count"].contents() == 2
    found = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
    # llama.cpp adds direction.N to the output of block N, which is our site of layer N.
    assert torch.equal(found["direction.3"], 2.0 * torch.arange(16.0))
    assert set(found) == {"direction.3", "direction.7"}


def test_gguf_of_repeng_is_read(tmp_path, tiny, h) -> None:
    from gguf import GGUFWriter

    path = tmp_path / "x.gguf"
    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "gemma3_text")
    writer.add_uint32("controlvector.layer_count", 2)
    for layer in (2, 1):
        writer.add_tensor(f"direction.{layer}", torch.full((16,), float(layer)).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    recipe, notes = read(path)
    assert "gemma3_text" in notes[0]
    assert "cannot be checked" in notes[0]
    assert recipe.about.model_fingerprint is None
    changes = {edit.site.layer: edit.delta(h) for edit in recipe.compile(tiny)}
    assert set(changes) == {1, 2}
    assert torch.equal(changes[2], torch.full_like(h, 2.0))


@dataclass
class SteeringVector:
    """The fields of the package's class."""

    layer_activations: dict[int, Tensor]
    layer_type: str = "decoder_block"


def test_the_object_of_steering_vectors_becomes_vector_edits() -> None:
    recipe, notes = from_object(SteeringVector({4: torch.ones(1, 16).half(), 0: -torch.ones(16)}))
    assert [edit.spec.site.layer for edit in recipe.edits] == [0, 4]
    assert torch.equal(added(recipe)[Site(layer=4)], torch.ones(16))
    assert "cannot be checked" in notes[0]
    with pytest.raises(InputError, match="mlp"):
        from_object(SteeringVector({4: torch.ones(16)}, "mlp"))


def test_pickles_are_not_read(tmp_path) -> None:
    path = tmp_path / "v.pt"
    torch.save(SteeringVector({4: torch.ones(16)}), path)
    with pytest.raises(FileError, match="Pickled objects are not read"):
        read(path, "steering-vectors")


def test_bodies_have_the_shape_that_their_servers_ask_for(make_sae, tmp_path) -> None:
    import json

    path, sae = tmp_path / "x.json", make_sae()
    export(Recipe.add(sae, {3: 2.0}, unit="raw"), path, "neuronpedia-steer", "gemma-2-2b/1-res-16k")
    body = json.loads(path.read_text())
    assert body["features"] == [{"modelId": "gemma-2-2b", "layer": "1-res-16k", "index": 3, "strength": 2.0}]
    assert body["steer_method"] == "SIMPLE_ADDITIVE"
    with pytest.raises(InputError, match="block 1"):
        export(Recipe.add(sae, {3: 2.0}), path, "neuronpedia-steer", "gemma-2-2b/20-res-16k")
    export(Recipe.vector(torch.ones(16), 3), path, "neuronpedia-vector", "gemma-2-2b")
    body = json.loads(path.read_text())
    assert (body["modelId"], body["layerNumber"], body["hookType"]) == ("gemma-2-2b", 3, "hook_resid_post")
    body["hookType"] = "hook_resid_pre"  # the stream that enters block 3 is the output of block 2
    path.write_text(json.dumps(body))
    assert read(path, "neuronpedia-vector")[0].sites == (Site(layer=2),)
    export(Recipe.vector(torch.ones(16), 3), path, "vllm-lens")
    (vector,) = json.loads(path.read_text())["apply_steering_vectors"]
    assert vector["layer_indices"] == [3]
    assert vector["activations"]["shape"] == [1, 16]
    csv = tmp_path / "x.csv"
    export(Recipe.add(sae, {3: 2.0}), csv, "lm-eval", "gemma-scope-2b-pt-res-canonical/layer_1/width_16k/canonical")
    head, row = csv.read_text().splitlines()
    assert head == "loader,action,sparse_model,hookpoint,feature_index,steering_coefficient,sae_id,description"
    length = float(sae.max_act[3]) * 2
    assert row.startswith("sae_lens,add,gemma-scope-2b-pt-res-canonical,layers.1,3,")
    assert row.endswith(",layer_1/width_16k/canonical,")
    assert float(row.split(",")[5]) == pytest.approx(length, rel=1e-5)


def hostile_gguf(tensors: list[tuple[str, int, int, int, int]], payload: bytes, count: int | None = None) -> bytes:
    """(name, dimensions, width, type, offset) of each tensor; `count` is what the header claims."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors) if count is None else count, 1)
    head += text("general.architecture") + struct.pack("<I", 8) + text("controlvector")
    for name, dims, width, kind, offset in tensors:
        head += text(name) + struct.pack("<IQIQ", dims, width, kind, offset)
    return head + bytes(-len(head) % 32) + payload


ONES = struct.pack("<4f", 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "in the middle of a value"),
        (b"NOPE" + bytes(40), "does not begin with GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (hostile_gguf([("direction.1", 1, 4, 0, 0)], ONES, count=2**60), "dimensions, not 1"),
        (hostile_gguf([("direction.1", 1, 2**62, 0, 0)], ONES), "larger than the file"),
        (hostile_gguf([("direction.1", 1, 4, 0, 2**63)], ONES), "in the middle of a value"),
        (hostile_gguf([("direction.1", 1, 4, 1, 0)], ONES), "not float32"),
        (hostile_gguf([("direction.1", 2, 4, 0, 0)], ONES), "2 dimensions"),
        (hostile_gguf([("../../etc/passwd", 1, 4, 0, 0)], ONES), "those of a control vector"),
        (hostile_gguf([("direction.1", 1, 4, 0, 0)] * 2, ONES * 2), "two tensors"),
        (hostile_gguf([("direction.1", 1, 1, 0, 0)], struct.pack("<f", float("nan"))), "not finite"),
        (hostile_gguf([("direction.1", 1, 4, 0, 0)], bytes(16)), "no vector that is not zero"),
        (hostile_gguf([("direction.1", 1, 4, 0, 0), ("direction.2", 1, 2, 0, 0)], ONES * 2), "different widths"),
    ],
)
def test_hostile_ggufs_are_refused_in_one_sentence(data: bytes, message: str, tmp_path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    with pytest.raises(FileError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


def test_tensors_that_are_not_those_of_the_sheet_are_refused(tmp_path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    export(Recipe.vector(torch.ones(16), 3), first, "tensors")
    export(Recipe.vector(torch.zeros(16) + 2, 3), second, "tensors")
    first.write_bytes(second.read_bytes())
    with pytest.raises(FileError, match=r"not the file that a\.json was written for"):
        read(first, "tensors")


def test_a_format_that_the_name_does_not_tell_is_asked_for(tmp_path) -> None:
    with pytest.raises(InputError, match="neuronpedia-vector"):
        read(tmp_path / "x.json")
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "x.gguf")


@pytest.mark.parametrize("format", FORMATS)
def test_devices_and_folders_are_no_files(format: str, tmp_path) -> None:
    suffix = FORMATS[format].suffix
    (tmp_path / f"folder{suffix}").mkdir()
    for name in (f"link{suffix}", "link.json"):
        if not (tmp_path / name).is_symlink():
            (tmp_path / name).symlink_to("/dev/zero")
    for name in ("folder", "link"):
        with pytest.raises(FileError, match=r"not a plain file|No such file"):
            read(tmp_path / f"{name}{suffix}", format)
    with pytest.raises(FileError, match="not a plain file"):
        Recipe.load(tmp_path / "link.json")
