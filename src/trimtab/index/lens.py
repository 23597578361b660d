"""What each decoder row points at: tokens through the logit lens, rows near it, and whether it reads or writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from trimtab.index.store import Index, check_belongs
from trimtab.index.tables import write_parts
from trimtab.lm.lens import lens
from trimtab.sae.activations import Progress

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

WRITES = 0.01
"""Features with a smaller output score rarely steer (Arad, Mueller and Belinkov, 2505.20063)."""
READS = 0.5
"""A feature reads words when its twenty most frequent tokens are at least this share of its firing."""
_CHUNK = 64


def add_lens(
    model: Model,
    sae: SAE,
    index: Index,
    *,
    output_scores: Mapping[int, float] | None = None,
    tokens: int = 15,
    neighbours: int = 10,
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Add the `lens` table: promoted and suppressed tokens (with their logits), neighbours (with their cosines),
    output score (None where it is not in `output_scores`), concentration and reads_writes.

    reads_writes is "reads", "writes", "both", "neither", or "unscored" without an output score. Raises `MismatchError`
    when the index was made with another SAE.
    """
    check_belongs(index, sae.fingerprint, sae.name)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("promoted", "promoted_values", "suppressed", "suppressed_values",
                              "neighbours", "neighbours_values")
    }  # fmt: skip
    rows = sae.rows(range(sae.d_sae))
    unit = normalize(rows, dim=-1)
    for start in range(0, sae.d_sae, _CHUNK):
        chunk = slice(start, min(start + _CHUNK, sae.d_sae))
        high, low = ends(model, rows[chunk], tokens)
        for name, (values, ids) in (("promoted", high), ("suppressed", low)):
            columns[name] += [[_text(model, int(i)) for i in row] for row in ids]
            columns[f"{name}_values"] += values.tolist()
        values, ids = near(unit, unit[chunk], neighbours, skip=range(chunk.start, chunk.stop))
        columns["neighbours"] += ids.to(torch.int32).tolist()
        columns["neighbours_values"] += values.tolist()
        progress(Progress("lens", chunk.stop, sae.d_sae, "features", 0.0))
    concentration = _concentration(index)
    scores = [(output_scores or {}).get(i) for i in range(sae.d_sae)]
    columns["output_score"] = scores
    columns["concentration"] = concentration.tolist()
    columns["reads_writes"] = [reads_writes(c, s) for c, s in zip(concentration, scores, strict=True)]
    write_parts(index.folder, "lens", {"feature": np.arange(sae.d_sae), **_typed(columns)})
    index.publish("lens/*.parquet")


def ends(model: Model, directions: Tensor, k: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The `k` most and the `k` least promoted tokens of directions [n, d], as (logits [n, k], ids [n, k]) each."""
    logits = lens(model, directions).cpu()
    k = min(k, logits.shape[1])
    high, low = logits.topk(k, dim=-1), logits.topk(k, dim=-1, largest=False)
    return (high.values, high.indices), (low.values, low.indices)


def near(rows: Tensor, queries: Tensor, k: int, skip: range | None = None) -> tuple[Tensor, Tensor]:
    """The `k` unit rows [d_sae, d] of largest cosine with each unit query [n, d], as (cosines, indices).

    `skip` names for each query the row that is not its own neighbour.
    """
    cosine = queries @ rows.T
    if skip is not None:
        cosine[torch.arange(len(queries)), torch.tensor(list(skip))] = -2.0
    found = cosine.topk(min(k, len(rows) - (skip is not None)), dim=-1)
    return found.values.cpu(), found.indices.cpu()


def reads_writes(concentration: float, output_score: float | None) -> str:
    """Whether a feature reads words, writes them, both or neither; "unscored" without an output score."""
    if output_score is None:
        return "unscored"
    reads, writes = concentration >= READS, output_score >= WRITES
    return "both" if reads and writes else "reads" if reads else "writes" if writes else "neither"


def _concentration(index: Index) -> np.ndarray:
    """The share of each feature's firing that falls on its twenty most frequent tokens; 0 where it never fires."""
    rows = index.query(
        "select feature, sum(n) / any_value(features.count) as share from (select feature, count as n, row_number() "
        "over (partition by feature order by count desc) as place from words) join features using (feature) "
        "where place <= 20 group by feature"
    )
    share = np.zeros(index.features)
    for row in rows:
        share[row["feature"]] = row["share"]
    return share


def _text(model: Model, token: int) -> str:
    return str(model.tokenizer.decode([token]))


def _typed(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    import pyarrow as pa

    kinds = {
        "promoted": pa.list_(pa.string()),
        "suppressed": pa.list_(pa.string()),
        "neighbours": pa.list_(pa.int32()),
        "reads_writes": pa.string(),
    }
    single = {"output_score", "concentration"}
    default = pa.list_(pa.float32())
    return {
        name: pa.array(values, pa.float64() if name in single else kinds.get(name, default))
        for name, values in columns.items()
    }
