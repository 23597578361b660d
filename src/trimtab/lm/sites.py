"""Which modules carry the residual stream of each architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, UnsupportedError
from trimtab.spec import Site

if TYPE_CHECKING:
    from torch import nn

# config.model_type -> where the list of blocks is. Each block takes the stream as its first
# argument and returns the stream after it, alone or as the first of a tuple.
BLOCKS: dict[str, str] = {
    "gpt2": "transformer.h",
    "gpt_neo": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "llama": "model.layers",
    "mistral": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "gemma": "model.layers",
    "gemma2": "model.layers",
    "gemma3": "model.language_model.layers",
    "gemma3_text": "model.layers",
    "phi3": "model.layers",
    "olmo2": "model.layers",
}


def layers(hf: nn.Module, blocks: str | None = None) -> tuple[nn.Module, ...]:
    """The blocks of the residual stream, first to last.

    `blocks` names them by hand for an architecture that is not in the table: a dotted path from the model to its
    list of blocks, such as "model.layers". Raises `InputError` when there is nothing there, and `UnsupportedError`
    for encoder-decoder models, which have two streams.
    """
    config: Any = hf.config
    kind = str(getattr(config, "model_type", "unknown"))
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedError(
            f"{kind!r} is an encoder-decoder model; only decoder-only language models can be steered."
        )
    if blocks is not None:
        return _at(hf, blocks, given=True)
    if kind not in BLOCKS:
        raise InputError(
            f"The architecture {kind!r} is not known. Known: {', '.join(sorted(BLOCKS))}. For any other decoder, name "
            f"its list of blocks by hand, such as open_model(..., blocks={_guess(hf)!r})."
        )
    return _at(hf, BLOCKS[kind], given=False)


def width(hf: nn.Module) -> int:
    """Width of the residual stream."""
    return int(text_config(hf).hidden_size)


def context(hf: nn.Module) -> int | None:
    """Longest context in tokens, or None where the configuration names no limit."""
    longest = getattr(text_config(hf), "max_position_embeddings", None)
    return int(longest) if longest else None


def text_config(hf: nn.Module) -> Any:
    """The language model's part of the configuration (multimodal models keep it one level down)."""
    config: Any = hf.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def check_site(site: int | str | Site, n_layers: int) -> Site:
    """`site` as a `Site`, or `InputError` when a model of `n_layers` blocks has no such place."""
    found = Site.of(site)
    if found.layer >= n_layers:
        raise InputError(
            f"The model has no site {found} (block index {found.layer}): it has {n_layers} blocks, so valid block "
            f"indices are 0 to {n_layers - 1}, or -1 for the stream that enters block 0."
        )
    return found


def _find(hf: nn.Module, path: str) -> nn.Module | None:
    module: Any = hf
    for name in path.split("."):
        module = getattr(module, name, None)
        if module is None:
            return None
    return module


def _at(hf: nn.Module, path: str, *, given: bool) -> tuple[nn.Module, ...]:
    from torch import nn

    module = _find(hf, path)
    if not isinstance(module, nn.ModuleList) or len(module) == 0:
        what = "is not there" if module is None else f"is a {type(module).__name__}, not a list of blocks"
        source = "The blocks you named" if given else f"The blocks of {type(hf).__name__}"
        raise InputError(f"{source}, {path!r}: this {what}. Name the list by hand, such as blocks={_guess(hf)!r}.")
    return tuple(module)


def _guess(hf: nn.Module) -> str:
    from torch import nn

    lists = [(len(module), name) for name, module in hf.named_modules() if isinstance(module, nn.ModuleList)]
    return max(lists)[1] if lists else "model.layers"
