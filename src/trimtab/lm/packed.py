"""Linear layers with their weights laid out for oneDNN once, instead of in every call.

`torch.nn.functional.linear` hands a plain float32 weight to MKL, which rearranges it in each call and, on some
processors, does not use their widest instructions. The same product with a weight that oneDNN has rearranged before is
the same float32 arithmetic, 2 to 4 times as fast at the sizes of a decoding step. (torch.compile does this too, by
the same two operators.) The price is a second copy of the weights.

Nothing on the model changes for good: inside `packed_layers` its linear layers' `forward` is another function, as
hooks are there only inside their context. Off the CPU, without oneDNN, or when memory is short, nothing is packed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from trimtab.lm.memory import free_bytes

if TYPE_CHECKING:
    from trimtab.lm.model import Model

_ROWS = 32  # the layout is chosen for this many rows; it is within a few percent of the best for others

# module -> (what its weight was, the weight in packed pieces); an entry is made again when the weight has changed
_cache: WeakKeyDictionary[nn.Module, tuple[tuple[int, int], list[Tensor]]] = WeakKeyDictionary()


def can_pack(model: Model) -> bool:
    """Whether this machine's oneDNN can take the model's weights, and memory has room for another copy of them.

    At most a quarter of the free memory is used for it.
    """
    ops = torch.ops.mkldnn
    if model.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not (hasattr(ops, "_linear_pointwise") and hasattr(ops, "_reorder_linear_weight")):
        return False
    if model.dtype == torch.bfloat16 and not ops._is_mkldnn_bf16_supported():
        return False
    if model.dtype not in (torch.float32, torch.bfloat16):
        return False
    new = [module for module in model.hf.modules() if _is_linear(module) and module not in _cache]
    needed = sum(int(module.weight.numel()) * model.dtype.itemsize for module in new)
    return 4 * needed <= free_bytes(model)


def pack(module: nn.Module, piece: int | None = None) -> list[Tensor]:
    """The weight of a linear layer in pieces of `piece` outputs (None: all of them in one), for `product`."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    now = (weight.data_ptr(), weight._version)
    known = _cache.get(module)
    if known is None or known[0] != now:
        rows = weight.detach() if isinstance(module, nn.Linear) else weight.detach().T.contiguous()
        parts = rows.split(piece or len(rows))
        _cache[module] = known = (now, [torch.ops.mkldnn._reorder_linear_weight(part, _ROWS) for part in parts])
    return known[1]


def product(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    """`x @ weight.T + bias` for a packed weight [out, in] and x [..., in].

    oneDNN compiles a program of 0.6 MB for each number of rows and shape of weight that it meets, and keeps a thousand
    and more. Rows of zeros fill up to the next of few numbers, so that a batch that shrinks row by row does not fill
    memory with programs.
    """
    rows = x.shape[:-1].numel()
    more = rounded(rows) - rows
    if more:
        x_and_zeros = nn.functional.pad(x.reshape(rows, -1), (0, 0, 0, more))
        return _linear(x_and_zeros, packed, bias)[:rows].view(*x.shape[:-1], -1)
    return _linear(x, packed, bias)


def rounded(rows: int) -> int:
    """The next number of rows that products are made with: all up to 16, then 8 from each power of 2 to the next."""
    step = 1 << max(0, (rows - 1).bit_length() - 4)
    return -(-rows // step) * step


def _linear(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


@contextmanager
def packed_layers(model: Model) -> Iterator[None]:
    """Run the linear layers of the model's blocks with packed weights, if `can_pack`; everything is put back after."""
    layers: Sequence[nn.Module] = []
    if can_pack(model):
        modules = (module for block in model.blocks for module in block.modules())
        layers = [module for module in modules if _is_linear(module) and "forward" not in vars(module)]
    done = []
    try:
        for layer in layers:
            layer.forward = _forward(pack(layer)[0], layer.bias)  # type: ignore[arg-type]
            done.append(layer)
        yield
    finally:
        for layer in done:
            del layer.forward


def _is_linear(module: nn.Module) -> bool:
    """Plain linear layers, and the transposed ones of GPT-2; not the quantised or sharded classes made from them."""
    return type(module) is nn.Linear or type(module).__name__ == "Conv1D"


def _forward(packed: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    return lambda x: product(x, packed, bias)
