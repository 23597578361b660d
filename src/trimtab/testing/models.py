"""Tiny random language models, one for each known architecture, with a tokenizer of one token per byte."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError
from trimtab.lm.load import Model, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Ids 0 to 2 are padding, BOS and EOS; byte b is id b + 3.
PAD, BOS, EOS, VOCAB = 0, 1, 2, 259
ARCHITECTURES = (
    "gpt2",
    "gpt_neo",
    "gpt_neox",
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "phi3",
    "olmo2",
)


def tiny_model(
    architecture: str = "gemma3_text",
    *,
    d_model: int = 16,
    n_layers: int = 3,
    context: int = 128,
    seed: int = 0,
    add_bos: bool = True,
) -> Model:
    """A random float32 model of 2 heads on the CPU, the same one for the same arguments."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = _build(architecture, d_model, n_layers, context)
    return wrap(hf, byte_tokenizer(add_bos=add_bos), f"tiny-{architecture}")


def byte_tokenizer(*, add_bos: bool = True) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per byte of UTF-8."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = {PAD: "<pad>", BOS: "<bos>", EOS: "<eos>"}
    vocab = {name: index for index, name in names.items()}
    vocab |= {letter: index + 3 for index, letter in enumerate(_byte_letters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names.values()])
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    letters, extra = [], 0
    for byte in range(256):
        letters.append(chr(byte) if byte in printable else chr(256 + extra))
        extra += byte not in printable
    return letters


def _build(architecture: str, d: int, n: int, context: int) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    ids: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    shape: dict[str, Any] = {
        "hidden_size": d,
        "intermediate_size": 2 * d,
        "num_hidden_layers": n,
        "num_attention_heads": 2,
        "max_position_embeddings": context,
    }
    if architecture == "gpt2":
        special = {"n_embd": d, "n_layer": n, "n_head": 2, "n_positions": context}
        config = AutoConfig.for_model("gpt2", **ids, **special)
    elif architecture == "gpt_neo":
        special = {"num_layers": n, "num_heads": 2, "hidden_size": d, "max_position_embeddings": context}
        kinds = [[["global", "local"], (n + 1) // 2]]
        config = AutoConfig.for_model(
            "gpt_neo", **ids, **special, attention_types=kinds if n % 2 == 0 else [[["global"], n]], window_size=8
        )
    elif architecture in ("gpt_neox", "olmo2", "phi3"):
        config = AutoConfig.for_model(architecture, **ids, **shape)
    elif architecture == "gemma3":
        text = {**ids, **shape, "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 8}
        config = AutoConfig.for_model("gemma3", text_config=text, vision_config=_VISION, mm_tokens_per_image=4)
    elif architecture in ARCHITECTURES:
        # only where the architecture has windows: elsewhere transformers' cache would forget what attention still sees
        window = {"sliding_window": 8} if architecture in ("mistral", "gemma2", "gemma3_text") else {}
        config = AutoConfig.for_model(architecture, **ids, **shape, num_key_value_heads=1, head_dim=8, **window)
    else:
        raise InputError(f"Unknown architecture {architecture!r}. Valid: {', '.join(ARCHITECTURES)}.")
    return AutoModelForCausalLM.from_config(config)


_VISION = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
