"""Everybody who writes text here: each function writes `tokens` tokens for `rows` prompts, ignoring end tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from trimtab import SAE, Model, Recipe, Site
from trimtab.lm.decode import Row, decode
from trimtab.lm.packed import can_pack, pack, product
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling

PROMPT = "Once upon a time, in house number {} by the river, there lived"
FEATURES = 4096


def ours(model: Model, recipes: Sequence[Recipe | None], tokens: int) -> float:
    """Our engine, all rows at once, every row with its own prompt and recipe.

    Returns the rate of the steps after the first, which reads the prompts, in tokens per second.
    """
    sampling = Sampling(max_new_tokens=tokens)
    rows = [
        Row(tuple(model.encode(PROMPT.format(i))), stream_key(0, PROMPT, i), sampling, recipe)
        for i, recipe in enumerate(recipes)
    ]
    times: list[float] = []
    decode(model, rows, batch_size=len(rows), progress=lambda now: times.append(now.seconds))
    return len(rows) * (tokens - 1) / (times[-1] - times[0])


def transformers_hooked(model: Model, rows: int, tokens: int, layer: int, vector: torch.Tensor) -> None:
    """`generate` of transformers, all rows at once, with the hook that tutorials use."""

    def add(_module: Any, _args: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    vector = vector.to(model.dtype)
    ids, mask = model.pad([model.encode(PROMPT.format(i)) for i in range(rows)])
    handle = model.blocks[layer].register_forward_hook(add)
    try:
        model.hf.generate(
            ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=tokens,
            eos_token_id=None,
            pad_token_id=model.pad_id,
        )
    finally:
        handle.remove()


def tutorial(model: Model, layer: int, vector: torch.Tensor) -> Callable[[int, int], None]:
    """The way of the SAE tutorials: a TransformerLens model, a hook that adds a decoder row, one prompt at a time.

    `model` belongs to TransformerLens afterwards, which rearranges it.
    """
    from transformer_lens.model_bridge import TransformerBridge

    bridge = TransformerBridge.boot_transformers(model.name, hf_model=model.hf, tokenizer=model.tokenizer, device="cpu")

    def steer(resid: torch.Tensor, hook: Any) -> torch.Tensor:
        return resid + vector

    def write(rows: int, tokens: int) -> None:
        for row in range(rows):
            with bridge.hooks(fwd_hooks=[(f"blocks.{layer}.hook_resid_post", steer)]):
                bridge.generate(
                    PROMPT.format(row), max_new_tokens=tokens, temperature=1.0, stop_at_eos=False, verbose=False
                )

    return write


def bare_products(model: Model, rows: int, packed: bool) -> Callable[[int], None]:
    """The matrix products of `tokens` decoding steps and nothing else: the blocks' linear layers and the head.

    As torch has them, or with the weights that oneDNN has rearranged beforehand, as our engine has them.
    """
    modules = [module for block in model.blocks for module in block.modules()]
    layers = [module for module in (*modules, model.hf.get_output_embeddings()) if isinstance(module, torch.nn.Linear)]
    if packed and not can_pack(model):
        raise SystemExit("no packed weights on this machine")
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(rows, layer.in_features, generator=generator).to(model.dtype) for layer in layers]
    weights = [pack(layer) if layer in modules else pack(layer, 4096) for layer in layers] if packed else []

    @torch.no_grad()
    def run(tokens: int) -> None:
        for _ in range(tokens):
            for i, layer in enumerate(layers):
                if packed:
                    for part in weights[i]:
                        product(inputs[i], part, None)
                else:
                    linear(inputs[i], layer.weight)

    return run


def random_sae(model: Model, layer: int) -> SAE:
    """A JumpReLU SAE of random features: what they mean does not matter for what they cost."""
    generator = torch.Generator().manual_seed(1)
    decoder = torch.randn(FEATURES, model.d_model, generator=generator)
    decoder /= decoder.norm(dim=1, keepdim=True)
    return SAE(
        name="random",
        architecture="jumprelu",
        site=Site(layer=layer),
        model_name=None,
        W_enc=decoder.T.contiguous(),
        b_enc=torch.zeros(FEATURES),
        W_dec=decoder,
        b_dec=torch.zeros(model.d_model),
        threshold=torch.full((FEATURES,), 0.1),
        max_act=torch.ones(FEATURES),
    )


def clamp_of(sae: SAE, rows: int, latents: int = 8) -> list[Recipe | None]:
    """For each row some latents clamped, other ones on every row."""
    return [
        Recipe.clamp(sae, {(latents * row + i) % FEATURES: 0.5 for i in range(latents)}, unit="raw")
        for row in range(rows)
    ]
