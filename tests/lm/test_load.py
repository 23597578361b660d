from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest
import torch

from trimtab.errors import FileError, InputError
from trimtab.lm.load import fingerprint, open_model
from trimtab.lm.residual import SiteEdit
from trimtab.spec import Scope, Site
from trimtab.testing.models import ARCHITECTURES, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = tiny_model("llama")
    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    model.hf.save_pretrained(path)
    model.tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    path = tmp_path / "copy"
    path.mkdir()
    for file in folder.iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    return path


def one_sentence(error):
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_saved_model_opens_as_it_was(folder, capfd):
    made, opened = tiny_model("llama"), open_model(folder, device="cpu")
    ids = torch.tensor([made.encode("hello")])
    assert torch.equal(opened.hf(ids).logits, made.hf(ids).logits)
    assert opened.fingerprint == made.fingerprint
    assert opened.name == str(folder)
    assert (opened.n_layers, opened.d_model, opened.context, opened.bos_id) == (3, 16, 128, 1)
    assert not opened.hf.training
    assert not any(parameter.requires_grad for parameter in opened.hf.parameters())
    out, err = capfd.readouterr()
    assert out == err == ""


def test_progress_bars_of_transformers_are_as_they_were(folder):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    open_model(folder, device="cpu")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_changes_the_weights_and_not_the_fingerprint(folder, dtype):
    model = open_model(folder, device="cpu", dtype=dtype)
    assert model.dtype == getattr(torch, dtype)
    assert model.fingerprint == tiny_model("llama").fingerprint


def test_dtype_auto_is_that_of_the_files_and_the_default_on_a_cpu_is_float32(tmp_path):
    model = tiny_model("llama")
    model.hf.to(torch.bfloat16).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    assert open_model(tmp_path, device="cpu", dtype="auto").dtype == torch.bfloat16
    assert open_model(tmp_path, device="cpu").dtype == torch.float32


def test_fingerprints_tell_models_apart():
    prints = {tiny_model(name, seed=seed).fingerprint for name in ARCHITECTURES for seed in (0, 1)}
    assert len(prints) == 2 * len(ARCHITECTURES)
    tuned = tiny_model("llama")
    for parameter in tuned.hf.parameters():
        parameter += 0.002 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    assert fingerprint(tuned.hf) != tiny_model("llama").fingerprint


@pytest.mark.parametrize("dtype", ["float64", "int8", "", "torch.float32"])
def test_a_wrong_dtype(folder, dtype):
    with pytest.raises(InputError, match="float32, bfloat16, float16, auto") as error:
        open_model(folder, dtype=dtype)
    assert repr(dtype) in one_sentence(error)


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "meta", ""])
def test_a_wrong_device(folder, device):
    with pytest.raises(InputError, match="cpu, cuda, cuda:0, mps") as error:
        open_model(folder, device=device)
    assert repr(device) in one_sentence(error)


def test_a_device_that_is_not_there(folder):
    with pytest.raises(InputError, match="has no device 'cuda:63'"):
        open_model(folder, device="cuda:63")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "a/b/c", "", "  "])
def test_a_folder_that_is_not_there(name):
    with pytest.raises(FileError, match="no model folder"):
        open_model(name)


@pytest.mark.parametrize("name", ["no-such-model-name", "nobody/no-such-model"])
def test_a_hub_name_that_cannot_be_had(name):
    with pytest.raises(FileError, match="could not be fetched") as error:
        open_model(name)
    assert "'gemma-3-270m' works without a network" in one_sentence(error)


def test_without_a_network_only_the_cache_is_asked_and_nothing_is_tried_again(monkeypatch, capfd):
    """Set apart from offline mode, in which the hub's client makes no attempts of its own."""
    from huggingface_hub import HfApi
    from transformers import AutoTokenizer

    def unreachable(self, name, timeout):
        raise ConnectionError("Name or service not known")

    asked = []

    def from_pretrained(name, local_files_only):
        asked.append((name, local_files_only))
        raise OSError("not in the cache\nsecond line")

    monkeypatch.setattr(HfApi, "model_info", unreachable)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(FileError, match="no network") as error:
        open_model("nobody/no-such-model")
    one_sentence(error)
    assert asked == [("nobody/no-such-model", True)]
    assert capfd.readouterr() == ("", "")


def test_a_folder_without_config(tmp_path):
    with pytest.raises(FileError, match=r"has no config\.json") as error:
        open_model(tmp_path)
    assert str(tmp_path) in one_sentence(error)


def test_a_file_instead_of_a_folder(folder):
    with pytest.raises(FileError, match="is a file"):
        open_model(folder / "config.json")


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_truncated_weights(copy, kept):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(FileError, match="damaged") as error:
        open_model(copy)
    assert str(copy) in one_sentence(error)


def test_missing_weights_file(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(FileError, match="incomplete or damaged") as error:
        open_model(copy)
    one_sentence(error)


def test_weights_that_lack_a_tensor_are_not_made_up(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileError, match=r"incomplete: 1 do not fit, such as model.layers.1.mlp.up_proj.weight"):
        open_model(copy)


def test_weights_of_another_shape(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    with pytest.raises(FileError, match=str(copy)) as error:
        open_model(copy)
    one_sentence(error)


@pytest.mark.parametrize("text", ["{", '{"model_type": "no_such_type"}', '{"model_type": "vit"}', "{}", "[]"])
def test_a_config_that_is_not_a_language_model(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(FileError) as error:
        open_model(copy)
    assert str(copy) in one_sentence(error)


def test_a_damaged_tokenizer(copy):
    (copy / "tokenizer.json").write_text('{"version": "1.0", "model": ')
    with pytest.raises(FileError) as error:
        open_model(copy)
    assert str(copy) in one_sentence(error)


def test_blocks_named_by_hand(folder):
    assert open_model(folder, device="cpu", blocks="model.layers").n_layers == 3
    with pytest.raises(InputError, match=r"blocks='model\.layers'"):
        open_model(folder, device="cpu", blocks="transformer.h")


# --- Model -----------------------------------------------------------------------------------------------------------


def test_encode_adds_bos_where_the_tokenizer_does(tiny, gpt2):
    assert tiny.encode("ab") == [1, 100, 101]
    assert gpt2.encode("ab") == [100, 101]
    assert tiny.encode("") == [1]
    assert tiny.decode([1, 100, 101, 2]) == "ab"


@pytest.mark.parametrize("text", ["hello", "tab\tnew\nline", "caf\u00e9 \u4eca\u5929 \U0001f600"])
def test_decode_undoes_encode(tiny, text):
    assert tiny.decode(tiny.encode(text)) == text


def test_prompts_are_checked(tiny):
    assert tiny.encode_prompt("a" * 120, room=7) == [1] + [100] * 120
    with pytest.raises(InputError, match="empty"):
        tiny.encode_prompt("")
    with pytest.raises(InputError, match=r"121 tokens and 8 new tokens.*context of tiny-gemma3_text is 128"):
        tiny.encode_prompt("a" * 120, room=8)
    with pytest.raises(InputError, match="must be text, not int"):
        tiny.encode_prompt(3)


def test_pad_on_either_side(tiny):
    ids, mask = tiny.pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = tiny.pad([[5, 6, 7], [8]], side="right")
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    with pytest.raises(InputError, match="nothing to pad"):
        tiny.pad([[], []])


def test_pad_needs_no_pad_token(tiny):
    from trimtab.lm.load import wrap
    from trimtab.testing.models import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.pad_token = None
    model = wrap(tiny.hf, tokenizer, "no pad")
    ids, mask = model.pad([[5, 6], [7]])
    assert ids.tolist() == [[5, 6], [model.eos_ids[0], 7]]
    assert mask.tolist() == [[1, 1], [0, 1]]
    assert tokenizer.pad_token is None


def test_a_model_is_frozen(tiny):
    with pytest.raises(FrozenInstanceError):
        tiny.name = "other"


class Shift:
    """A recipe as lm sees one."""

    def __init__(self, size):
        self.size = size

    def compile(self, model):
        return [SiteEdit(Site(layer=0), Scope(), None, lambda h: torch.full_like(h, self.size))]

    @classmethod
    def compile_rows(cls, recipes, model):
        return [
            SiteEdit(Site(layer=0), Scope(), torch.tensor([row]), lambda h, size=one.size: torch.full_like(h, size))
            for row, one in enumerate(recipes)
            if one is not None
        ]


def test_edited_takes_one_recipe_for_all_rows_or_one_per_row(tiny):
    ids = torch.tensor([tiny.encode("abc")] * 3)
    plain = tiny.hf(ids).logits
    with tiny.edited(Shift(1.0)) as receipt:
        all_rows = tiny.hf(ids).logits
    assert receipt.steps[0].positions == [[1, 2, 3]] * 3
    with tiny.edited([None, Shift(1.0), Shift(0.5)]) as receipt:
        per_row = tiny.hf(ids).logits
    assert receipt.steps[0].positions == [[], [1, 2, 3], [1, 2, 3]]
    assert torch.equal(per_row[0], plain[0])
    assert torch.equal(per_row[1], all_rows[1])
    assert not torch.equal(per_row[2], all_rows[2])
    with tiny.edited([None, Shift(1.0)]) as receipt:
        tiny.hf.generate(torch.cat([ids[:2]]), num_return_sequences=2, do_sample=True, max_new_tokens=2)
    assert receipt.steps[0].positions == [[], [], [1, 2, 3], [1, 2, 3]]


@pytest.mark.parametrize("nothing", [None, [None, None], []])
def test_edited_without_a_recipe_is_the_plain_model(tiny, nothing):
    ids = torch.tensor([tiny.encode("abc")] * 2)
    plain = tiny.hf(ids).logits
    with tiny.edited(nothing) as receipt:
        assert torch.equal(tiny.hf(ids).logits, plain)
    assert receipt.steps == []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_models_are_the_same_each_time_and_leave_the_seed_alone(architecture):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b = tiny_model(architecture), tiny_model(architecture)
    assert torch.equal(torch.rand(1), expected)
    ids = torch.tensor([a.encode("abc")])
    assert torch.equal(a.hf(ids).logits, b.hf(ids).logits)
