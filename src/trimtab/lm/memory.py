"""How many rows fit in memory at once, and giving it back."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.lm.sites import text_config

if TYPE_CHECKING:
    from trimtab.lm.model import Model

# Beyond this, a step takes as much longer as there are more rows: the arithmetic is the limit.
MOST_ROWS = 128


def rows_that_fit(model: Model, longest: int, limit: int | None = None) -> int:
    """How many rows of up to `longest` tokens fit in `limit` bytes (None: half of the free memory), 128 at most."""
    limit = free_bytes(model) // 2 if limit is None else limit
    return max(1, min(MOST_ROWS, limit // bytes_per_row(model, longest)))


def bytes_per_row(model: Model, longest: int) -> int:
    """Keys and values of `longest` tokens in every layer, and float32 logits twice over."""
    config: Any = text_config(model.hf)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or model.d_model // heads
    cache = longest * model.n_layers * 2 * kv_heads * head_dim * model.dtype.itemsize
    return int(cache) + 8 * int(config.vocab_size)


def free_bytes(model: Model) -> int:
    """Memory that can be had on the model's device without swapping."""
    if model.device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(model.device)[0])
    return free_here()


def free_here() -> int:
    """Main memory that can be had without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (ValueError, OSError):
        return 4 << 30


def give_back() -> None:
    """Return freed memory to the system, where the C library is glibc; elsewhere nothing happens.

    glibc keeps what lies below anything still in use: after a batch that is its whole cache, and the next one does not
    always fit in the same places. Takes some hundredths of a second per gigabyte.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
