"""A small world whose truth is known: a language model, and an SAE of it with planted features among distractors.

The model is a GPT-2 of width 32 that speaks sentences such as "the cat found a bridge ." word by word. Its weights are
set by hand in a secret orthonormal basis:

* the word now determines the class of the next one (article, noun, verb, stop);
* every word of a concept carries 3 units of the concept's *writer* direction and 3 of its *reader* direction;
* the output head raises the logits of the concept's words along the writer direction and is blind to the reader's.

So both features fire on the same words, and only the writer makes the model say them. After the site the blocks pass
the stream on unchanged and there is no final norm: adding v at the site changes the logits by exactly `lm_head(v)`.
BOS is a sink: its residual is ten times longer than any other and fires every reader. Decoder rows have different
lengths and the decoder's bias is not small, so code that leaks it is caught.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.lm.load import Model, wrap
from trimtab.lm.residual import read
from trimtab.sae.sae import SAE
from trimtab.spec import Site

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fire": ("flame", "smoke", "ember", "spark", "ash"),
        "sea": ("wave", "boat", "harbour", "sailor", "tide"),
        "music": ("song", "drum", "violin", "choir", "melody"),
    }
)
_CLASSES = {
    "article": ("the", "a", "every"),
    "noun": ("cat", "dog", "child", "house", "tree", "bridge", "stone", "time"),
    "verb": ("saw", "found", "took", "liked", "was", "upon", "once", "there"),
    "stop": (".",),
}
_NEXT = {"article": ("noun",), "noun": ("verb", "stop"), "verb": ("article",), "stop": ("article",)}
_SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
NAME = "planted"
_WIDTH, _LAYERS, _CONTEXT, _SITE = 32, 3, 256, 1
_ALLOWED = 4.0  # logit of a word whose class may follow
_RARITY = 2.5  # what the concepts' words lose in every logit
_CARRY = 3.0  # how far a word lies along its concept's two directions
_DISTRACTORS = 20


@dataclass(frozen=True, eq=False)
class PlantedWorld:
    """The model, its SAE, and what is true of them."""

    model: Model
    sae: SAE
    site: Site
    concepts: Mapping[str, int]  # name -> the feature that fires on its words and writes them
    readers: Mapping[str, int]  # name -> the feature that fires on the same words and writes nothing
    words: Mapping[str, tuple[str, ...]]  # name -> its words
    directions: Mapping[str, Tensor]  # name -> the writer's unit direction [d]

    def texts(self, concept: str | None, n: int, seed: int = 0) -> list[str]:
        """`n` texts of three sentences, each with a word of `concept`; with None, texts without any concept."""
        if concept is not None and concept not in self.words:
            raise InputError(f"Unknown concept {concept!r}. Valid: {', '.join(self.words)}.")
        draw = random.Random(f"{concept} {seed}")
        return [" ".join(_sentence(draw, concept) for _ in range(3)) for _ in range(n)]


def planted_world(seed: int = 0) -> PlantedWorld:
    """The world for `seed`, which decides directions, feature indices and the distractors."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(_WIDTH, _WIDTH, generator=generator)).Q
    names = ["constant", *_CLASSES, *(f"write {c}" for c in WORDS), *(f"read {c}" for c in WORDS)]
    axes = dict(zip(names, basis, strict=False))
    rest = basis[len(names) :]  # [free, d]: room for context and distractors
    model = _model(axes, rest, seed, generator)
    sae, writers, readers = _sae(axes, rest, generator)
    world = PlantedWorld(
        model=model,
        sae=sae,
        site=sae.site,
        concepts=MappingProxyType(writers),
        readers=MappingProxyType(readers),
        words=WORDS,
        directions=MappingProxyType({c: axes[f"write {c}"] for c in WORDS}),
    )
    return replace(world, sae=_measured(world))


def _vocabulary() -> dict[str, int]:
    words = [*_SPECIAL, *(w for group in (*_CLASSES.values(), *WORDS.values()) for w in group)]
    return {word: index for index, word in enumerate(words)}


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, lower case, BOS in front."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = _vocabulary()
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
    )


def _model(axes: dict[str, Tensor], rest: Tensor, seed: int, generator: torch.Generator) -> Model:
    from transformers import GPT2Config, GPT2LMHeadModel

    ids = {name: _vocabulary()[f"<{name}>"] for name in ("pad", "bos", "eos")}
    config = GPT2Config(
        vocab_size=len(_vocabulary()),
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=2,
        n_positions=_CONTEXT,
        tie_word_embeddings=False,
        **{f"{name}_token_id": index for name, index in ids.items()},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf: Any = GPT2LMHeadModel(config)
    hf.transformer.ln_f = torch.nn.Identity()
    spare = rest.T @ rest  # projects on the part of the stream where the blocks may write
    with torch.no_grad():
        hf.transformer.wpe.weight.zero_()
        hf.transformer.wte.weight.copy_(_embedding(axes, rest, generator))
        hf.lm_head.weight.copy_(_head(axes, rest, generator))
        for layer, block in enumerate(hf.transformer.h):
            for part in (block.attn, block.mlp):
                part.c_proj.weight.copy_(part.c_proj.weight @ spare * 5 if layer <= _SITE else 0 * part.c_proj.weight)
    return wrap(hf, _tokenizer(), NAME)


def _embedding(axes: dict[str, Tensor], rest: Tensor, generator: torch.Generator) -> Tensor:
    """What each word puts into the stream, [vocabulary, d]."""
    vocabulary = _vocabulary()
    table = 0.5 * torch.randn(len(vocabulary), len(rest), generator=generator) @ rest + axes["constant"]
    for kind, words in _CLASSES.items():
        for word in words:
            table[vocabulary[word]] += axes[kind]
    for concept, words in WORDS.items():
        for word in words:
            table[vocabulary[word]] += axes["noun"] + _CARRY * (axes[f"write {concept}"] + axes[f"read {concept}"])
    for name in _SPECIAL:
        table[vocabulary[name]] = axes["constant"] + axes["stop"]
    table[vocabulary["<bos>"]] += 10 * _CARRY * torch.stack([axes[f"read {c}"] for c in WORDS]).sum(0)
    return table


def _head(axes: dict[str, Tensor], rest: Tensor, generator: torch.Generator) -> Tensor:
    """What raises the logit of each word, [vocabulary, d]."""
    vocabulary = _vocabulary()
    table = 0.1 * torch.randn(len(vocabulary), len(rest), generator=generator) @ rest
    for kind, following in _NEXT.items():
        for follower in following:
            for word in _CLASSES[follower] + (sum(WORDS.values(), ()) if follower == "noun" else ()):
                table[vocabulary[word]] += _ALLOWED * axes[kind]
    for concept, words in WORDS.items():
        for word in words:
            table[vocabulary[word]] += axes[f"write {concept}"] - _RARITY * axes["constant"]
    for word in ("once", "upon", "there", "was", "time"):
        table[vocabulary[word]] -= _ALLOWED * axes["constant"]
    for name in _SPECIAL:
        table[vocabulary[name]] = -5 * _ALLOWED * axes["constant"]
    return table


def _sae(
    axes: dict[str, Tensor], rest: Tensor, generator: torch.Generator
) -> tuple[SAE, dict[str, int], dict[str, int]]:
    """A JumpReLU SAE of the planted features, one per word class, and distractors, in random order."""
    planted = [f"{kind} {concept}" for kind in ("write", "read") for concept in WORDS]
    noise = torch.randn(_DISTRACTORS, len(rest), generator=generator) @ rest
    directions = torch.stack([axes[name] for name in (*planted, *_CLASSES)] + list(noise / noise.norm(dim=1)[:, None]))
    order = torch.randperm(len(directions), generator=generator)
    place = {name: int((order == i).nonzero()) for i, name in enumerate(planted)}
    threshold = torch.full((len(directions),), 0.5)
    directions, threshold = directions[order], threshold[order]
    lengths = 0.5 + 1.5 * torch.rand(len(directions), generator=generator)
    W_enc = (directions / lengths[:, None]).T.contiguous()
    b_dec = torch.randn(_WIDTH, generator=generator)
    sae = SAE(
        name=NAME,
        architecture="jumprelu",
        site=Site(layer=_SITE),
        model_name=NAME,
        W_enc=W_enc,
        b_enc=b_dec @ W_enc,  # undoes b_dec on the input: an activation is the component itself, over the row's length
        W_dec=directions * lengths[:, None],
        b_dec=b_dec,
        threshold=threshold / lengths,
    )
    return sae, {c: place[f"write {c}"] for c in WORDS}, {c: place[f"read {c}"] for c in WORDS}


def _measured(world: PlantedWorld) -> SAE:
    """The SAE with maximum activations and densities over the world's own texts, BOS left out."""
    texts = [text for concept in (None, *WORDS) for text in world.texts(concept, 10, seed=99)]
    ids, mask = world.model.pad([world.model.encode(text) for text in texts], side="right")
    real = mask.bool()
    real[:, 0] = False
    f = world.sae.encode(read(world.model, ids, [world.site], mask)[world.site][real])
    return replace(world.sae, max_act=f.amax(0), density=(f > 0).float().mean(0))


def _sentence(draw: random.Random, concept: str | None) -> str:
    articles, verbs = _CLASSES["article"], _CLASSES["verb"][:4]
    nouns = [draw.choice(_CLASSES["noun"][:-1]) for _ in range(2)]
    if concept is not None:
        nouns[draw.randrange(2)] = draw.choice(WORDS[concept])
    return f"{draw.choice(articles)} {nouns[0]} {draw.choice(verbs)} {draw.choice(articles)} {nouns[1]} ."
