from __future__ import annotations

import dataclasses
import json
import math
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.spec import Scope
from trimtab.steer.compile import lowered
from trimtab.steer.recipe import Recipe
from trimtab.steer.recipe_file import HEADER_LIMIT, KEY
from trimtab.steer.spec import About, Setting

strengths = st.dictionaries(st.integers(0, 39), st.floats(-100, 100), min_size=1, max_size=4)
scopes = st.builds(
    Scope,
    prompt=st.just(True),
    generated=st.booleans(),
    window=st.none() | st.tuples(st.integers(0, 3), st.none() | st.integers(4, 9)),
    exclude=st.lists(st.integers(0, 50), max_size=3).map(tuple),
    bos=st.booleans(),
)
words = st.text(max_size=8)
notes = st.builds(
    About,
    model=st.none() | words,
    contrast=st.none() | words,
    cluster=st.none() | st.lists(st.integers()),
    settings=st.dictionaries(words, st.builds(Setting, value=st.integers() | words, given=st.booleans()), max_size=3),
    evidence=st.dictionaries(words, st.floats(allow_nan=False, allow_infinity=False) | words, max_size=3),
)


@st.composite
def recipes(draw, make_sae) -> Recipe:
    """A recipe of up to three edits, each of its own SAE so that none conflict."""
    recipe = Recipe()
    for seed in range(draw(st.integers(1, 3))):
        sae = make_sae(
            draw(st.sampled_from(["standard", "jumprelu", "gated"])),
            normalisation=draw(st.sampled_from(["none", "layer_norm"])),
            seed=seed,
        )
        scope, values = draw(scopes), draw(strengths)
        op = draw(st.sampled_from(["add", "clamp", "scale", "ablate", "min", "max", "vector", "project"]))
        if op == "vector" or op == "project":
            recipe += getattr(Recipe, op)(torch.randn(16), 1, draw(st.floats(-9, 9)), scope=scope)
        elif op == "ablate":
            recipe += Recipe.ablate(sae, values, scope=scope)
        elif op == "scale":
            recipe += Recipe.scale(sae, values, scope=scope)
        else:
            unit = draw(st.sampled_from(["raw", "max_act"]))
            recipe += getattr(Recipe, op)(sae, values, unit=unit, scope=scope)
    return dataclasses.replace(recipe, about=draw(notes))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_saved_is_what_is_loaded(data, make_sae, tiny, h) -> None:
    recipe = data.draw(recipes(make_sae))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.recipe.safetensors"
        recipe.save(path)
        assert [file.name for file in Path(folder).iterdir()] == [path.name]
        loaded = Recipe.load(path)
    assert loaded == recipe
    assert loaded.about == recipe.about
    assert [edit.spec for edit in loaded.edits] == [edit.spec for edit in recipe.edits]
    lowered.cache_clear()  # equal recipes share what was computed, and then this would compare it with itself
    from_file = loaded.compile(tiny)
    lowered.cache_clear()
    for mine, theirs in zip(from_file, recipe.compile(tiny), strict=True):
        assert (mine.site, mine.scope) == (theirs.site, theirs.scope)
        # A file holds the SAE's columns; they must give the same numbers as the SAE, not only nearly so.
        assert torch.equal(mine.delta(h), theirs.delta(h))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.recipe.safetensors"


def test_topk_needs_its_sae_for_latents_but_not_for_adding(make_sae, tiny, h, path) -> None:
    sae = make_sae("topk")
    recipe = Recipe.clamp(sae, {3: 2.0, 7: 1.0})
    recipe.save(path)
    with pytest.raises(MismatchError, match=r"TopK SAE random-topk-0.*load it with that SAE"):
        Recipe.load(path)
    loaded = Recipe.load(path, sae=sae)
    assert loaded == recipe
    lowered.cache_clear()
    assert torch.equal(loaded.compile(tiny)[0].delta(h), recipe.compile(tiny)[0].delta(h))
    Recipe.add(sae, {3: 2.0}).save(path)
    assert Recipe.load(path) == Recipe.add(sae, {3: 2.0})


def test_another_sae_is_refused(make_sae, path) -> None:
    Recipe.add(make_sae(), {3: 2.0}).save(path)
    assert Recipe.load(path, sae=make_sae()).features == {3: 2.0}
    with pytest.raises(MismatchError, match=r"made with the SAE random-jumprelu-0 .*not with random-jumprelu-1"):
        Recipe.load(path, sae=make_sae(seed=1))


def test_a_loaded_recipe_refuses_the_wrong_model(make_sae, tiny, path) -> None:
    from trimtab.testing.models import tiny_model

    Recipe.clamp(make_sae(), {3: 2.0}).made_for(tiny).save(path)
    loaded = Recipe.load(path)
    assert len(loaded.compile(tiny)) == 1
    with pytest.raises(MismatchError, match="made for the model tiny-gemma3_text"):
        loaded.compile(tiny_model("gemma3_text", seed=1))
    Recipe.add(make_sae(model_name="gpt2"), {3: 2.0}).save(path)
    with pytest.raises(MismatchError, match="trained on 'gpt2'"):
        Recipe.load(path).compile(tiny)


def test_edits_of_one_sae_from_a_file_and_from_the_sae_share_a_batch(make_sae, tiny, h, path) -> None:
    sae = make_sae()
    Recipe.clamp(sae, {3: 2.0, 7: 1.0}).save(path)
    bare = make_sae(max_act=False)
    recipes = [Recipe.load(path), Recipe.scale(sae, {9: 3.0, 7: 0.5}), Recipe.ablate(bare, [11])]
    (edit,) = Recipe.compile_rows(recipes, tiny)
    for row, recipe in enumerate(recipes):
        alone = recipe.compile(tiny)[0].delta(h[row : row + 1])
        torch.testing.assert_close(edit.delta(h[:3])[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def rewrite(path: Path, change) -> None:
    """Change header and tensors of a recipe file in place: `change(header, tensors)`."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, path, {KEY: json.dumps(header)})


def tampered(header, tensors) -> None:
    tensors["0.rows"][0, 0] += 1


def not_a_number(header, tensors) -> None:
    tensors["0.rows"][0, 0] = math.nan


def half(header, tensors) -> None:
    tensors["0.rows"] = tensors["0.rows"].half()


def setting(*where, value):
    def change(header, tensors) -> None:
        for key in where[:-1]:
            header = header[key]
        header[where[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (tampered, "damaged: its tensors"),
        (not_a_number, "0.rows has values that are NaN or infinite"),
        (half, "0.rows has dtype torch.float16"),
        (setting("edits", 0, "strengths", value=[3.0]), "damaged: its edits"),
        (setting("edits", 0, "strengths", value=[math.nan]), "NaN, which is not a number"),
        (setting("edits", 0, "strengths", value=[1.0, 2.0]), "one strength each"),
        (setting("edits", 0, "features", value=[40]), "out of range"),
        (setting("edits", 0, "op", value="explode"), "edits.0.op.*'explode'"),
        (setting("edits", 0, "unit", value="norm"), "takes no unit 'norm'"),
        (setting("edits", 0, "sae", value=None), "needs an SAE"),
        (setting("edits", 0, "sae", "d_in", value=4), r"'rows' must have shape \[1, 4\]"),
        (setting("edits", 0, "reader", value=None), "does not say how"),
        (setting("edits", value=[]), "edits"),
        (setting("secret", value=1), "secret: Extra inputs are not permitted"),
        (setting("about", "mood", value="good"), "about.mood"),
        (setting("format", value=2), "format"),
        (lambda header, tensors: header.pop("digest"), "digest"),
    ],
)
def test_damaged_and_hostile_files_are_refused_in_one_sentence(change, message: str, make_sae, path) -> None:
    Recipe.clamp(make_sae(), {3: 2.0}).save(path)
    rewrite(path, lambda header, tensors: None)
    assert Recipe.load(path).features == {3: 2.0}
    rewrite(path, change)
    with pytest.raises(FileError, match=message) as raised:
        Recipe.load(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def with_content(change):
    """As `change`, with a content digest that fits, as somebody who means harm would write it."""
    from trimtab.steer.recipe_file import _content

    def both(header, tensors) -> None:
        change(header, tensors)
        header["content"] = _content(tensors)

    return both


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, tensors: tensors.pop("0.rows"), "'rows' must have shape.*missing"),
        (lambda header, tensors: tensors.pop("0.sae.b_dec"), "lack b_dec"),
        (lambda header, tensors: tensors.pop("0.sae.threshold"), "needs threshold"),
        (lambda header, tensors: tensors.update({"0.sae.b_enc": torch.zeros(3)}), "b_enc has shape"),
        (lambda header, tensors: tensors.update({"9.rows": torch.zeros(3)}), "unknown tensors 9.rows"),
        (lambda header, tensors: tensors.update({"0.sae.k": torch.zeros(3)}), "unknown tensors 0.sae.k"),
        (lambda header, tensors: tensors["0.rows"].mul_(2), "damaged: its edits"),
    ],
)
def test_consistent_forgeries_are_refused_too(change, message: str, make_sae, path) -> None:
    Recipe.clamp(make_sae(), {3: 2.0}).save(path)
    rewrite(path, with_content(change))
    with pytest.raises(FileError, match=message):
        Recipe.load(path)


def test_files_that_are_no_recipes(make_sae, path, tmp_path) -> None:
    with pytest.raises(FileError, match="No such file"):
        Recipe.load(path)
    with pytest.raises(FileError, match="cannot be read"):
        Recipe.load(tmp_path)
    path.write_bytes(b"abc")
    with pytest.raises(FileError, match="header is cut off"):
        Recipe.load(path)
    path.write_bytes(struct.pack("<Q", HEADER_LIMIT + 1) + bytes(HEADER_LIMIT + 100))
    with pytest.raises(FileError, match="larger than 16 MiB"):
        Recipe.load(path)
    path.write_bytes(struct.pack("<Q", 4) + b"{}}}" + bytes(100))
    with pytest.raises(FileError, match="not a recipe file"):
        Recipe.load(path)
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(FileError, match="safetensors file but not a recipe"):
        Recipe.load(path)
    save_file({"a": torch.zeros(2)}, path, {KEY: "[" * 5000})
    with pytest.raises(FileError, match="not a valid recipe"):
        Recipe.load(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(share: float, make_sae, path) -> None:
    Recipe.clamp(make_sae(), {3: 2.0}).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(FileError, match="not a recipe file"):
        Recipe.load(path)


def test_a_failed_save_leaves_the_old_file(make_sae, path, monkeypatch) -> None:
    recipe = Recipe.add(make_sae(), {3: 2.0})
    recipe.save(path)
    write = Path.write_bytes

    def full(part: Path, content: bytes) -> None:
        write(part, content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(Exception, match="disk is full"):
        (recipe * 2).save(path)
    assert Recipe.load(path) == recipe
    assert list(path.parent.iterdir()) == [path]


def test_what_cannot_be_saved_is_said(make_sae, path) -> None:
    with pytest.raises(InputError, match="no edits"):
        Recipe().save(path)
    recipe, noted = Recipe.add(make_sae(), {3: 2.0}), About()
    noted.evidence["effect"] = math.inf
    with pytest.raises(InputError, match="not finite"):
        dataclasses.replace(recipe, about=noted).save(path)
    assert not path.exists()


def test_what_a_file_says_is_quoted_in_short(make_sae, path) -> None:
    Recipe.clamp(make_sae(), {3: 2.0}).save(path)

    def change(header, tensors) -> None:
        header["{" * 5000] = 1
        header["edits"][0]["features"] = ["x" * 5000] * 100

    rewrite(path, change)
    with pytest.raises(FileError, match="and 9") as raised:
        Recipe.load(path)
    assert len(str(raised.value)) < 2000
