"""Formats of the weights: what one decoding step's products take in each, and how each changes the model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trimtab import Model, generate

Product = Callable[[Tensor], Tensor]
GROUP = 32  # numbers that share a scale in the 4-bit format
PROMPTS = ("Once upon a time", "The first rule is", "My day at work", "In the morning they")


def plain(weight: Tensor) -> Product:
    """As torch has it."""
    return lambda x: linear(x, weight)


def packed(dtype: torch.dtype) -> Callable[[Tensor], Product]:
    """Rearranged by oneDNN, as in the engine."""

    def make(weight: Tensor) -> Product:
        # the head in pieces, as in the engine
        parts = [torch.ops.mkldnn._reorder_linear_weight(part, 32) for part in weight.to(dtype).split(4096)]
        one = torch.ops.mkldnn._linear_pointwise
        return lambda x: torch.cat([one(x.to(dtype), part, None, "none", [], "").float() for part in parts], -1)

    return make


def int8_weights(dtype: torch.dtype) -> Callable[[Tensor], Product]:
    """8-bit weights with a scale for each output; activations as they are (torch's own kernel)."""

    def make(weight: Tensor) -> Product:
        scale = weight.abs().amax(1, keepdim=True) / 127
        whole, scale = (weight / scale).round().to(torch.int8), scale[:, 0].to(dtype)
        return lambda x: torch.ops.aten._weight_int8pack_mm(x.to(dtype), whole, scale).float()

    return make


def int4_weights(dtype: torch.dtype) -> Callable[[Tensor], Product]:
    """4-bit weights with a scale and a middle for each 32 of them (torch's own kernel)."""

    def make(weight: Tensor) -> Product:
        groups = weight.unflatten(1, (-1, GROUP))
        low, high = groups.amin(-1), groups.amax(-1)
        scale = ((high - low) / 15).clamp(min=1e-9)
        whole = ((groups - low[..., None]) / scale[..., None]).round().clamp(0, 15).flatten(1).int()
        kept = torch.ops.aten._convert_weight_to_int4pack_for_cpu(whole, 2)
        # the kernel computes (q - 8) * scale + middle
        facts = torch.stack([scale, low + 8 * scale], -1).transpose(0, 1).contiguous().to(dtype)
        return lambda x: torch.ops.aten._weight_int4pack_mm_for_cpu(x.to(dtype), kept, GROUP, facts).float()

    return make


def int8_both(weight: Tensor) -> Product:
    """8-bit weights, and activations rounded to 8 bits in each call (torch.ao's dynamic quantisation)."""
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.qconfig = per_channel_dynamic_qconfig  # type: ignore[assignment]
    made: Product = Linear.from_float(layer)
    return made


def torchao(config: str) -> Callable[[Tensor], Product]:
    """A configuration of torchao, without torch.compile."""

    def make(weight: Tensor) -> Product:
        import torchao.quantization as ao

        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
        box = nn.Sequential(layer)
        ao.quantize_(box, getattr(ao, config)())
        return box[0]

    return make


FORMATS: dict[str, Callable[[Tensor], Product]] = {
    "float32": plain,
    "float32 packed": packed(torch.float32),
    "bfloat16 packed": packed(torch.bfloat16),
    "int8 weights, bfloat16": int8_weights(torch.bfloat16),
    "int4 weights, bfloat16": int4_weights(torch.bfloat16),
    "int8 weights and activations": int8_both,
    "torchao Int8WeightOnly": torchao("Int8WeightOnlyConfig"),
    "torchao Int8DynamicActivationInt8Weight": torchao("Int8DynamicActivationInt8WeightConfig"),
}


def linear_layers(model: Model) -> list[nn.Linear]:
    """Those of the blocks, and the output layer."""
    modules = [module for block in model.blocks for module in block.modules()]
    return [one for one in (*modules, model.hf.get_output_embeddings()) if isinstance(one, nn.Linear)]


def formats(model: Model, rows: list[int]) -> dict[str, Any]:
    """For each format: milliseconds of one step's products by number of rows, and the mean KL divergence in nats."""
    layers = linear_layers(model)
    texts = [one.token_ids for one in generate(model, PROMPTS, samples=2, max_new_tokens=40)]
    ids, real = model.pad(texts, side="right")
    before = model.hf(ids, attention_mask=real).logits.log_softmax(-1)[real == 1]
    inputs = {n: [torch.randn(n, layer.in_features) for layer in layers] for n in rows}
    found: dict[str, Any] = {}
    for name, make in FORMATS.items():
        try:
            products = [make(layer.weight.detach()) for layer in layers]
            times = {n: 1e3 * median_seconds(partial(_all, products, inputs[n])) for n in rows}
            found[name] = {"milliseconds": times, "kl": _kl(model, layers, products, ids, real, before)}
        except (ImportError, RuntimeError, AssertionError, NotImplementedError) as error:
            found[name] = {"refused": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
        print(name, found[name], flush=True)
    return found


def _all(products: list[Product], inputs: list[Tensor]) -> None:
    for product, x in zip(products, inputs, strict=True):
        product(x)


def _kl(
    model: Model, layers: list[nn.Linear], products: list[Product], ids: Tensor, real: Tensor, before: Tensor
) -> float:
    """Mean KL divergence in nats from float32, over all tokens of the texts."""

    def flat(product: Product) -> Product:
        return lambda x: product(x.flatten(0, -2)).float().unflatten(0, x.shape[:-1])

    for layer, product in zip(layers, products, strict=True):
        layer.forward = flat(product)  # type: ignore[method-assign]
    try:
        after = model.hf(ids, attention_mask=real).logits.log_softmax(-1)[real == 1]
    finally:
        for layer in layers:
            del layer.forward
    return float((before.exp() * (before - after)).sum(-1).mean())


def median_seconds(call: Callable[[], object], seconds: float = 0.5) -> float:
    """Median processor time of a call, over as many as fit (3 at least), after one to warm up."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return statistics.median(times)
