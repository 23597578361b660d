"""What an SAE is worth, measured: reconstruction, sparsity, live features, and what splicing it in costs the model.

FVU = sum of ||x - xhat||^2 / sum of ||x - mean||^2.
Cross-entropy recovered = (CE_zero - CE_spliced) / (CE_zero - CE_clean), where "zero" has zeros for the residual.
BOS and attention-sink tokens are left out everywhere, as in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trimtab.files import write_file, write_json
from trimtab.lm.texts import Context, batches, iter_contexts, iter_texts
from trimtab.sae.activations import Harvest, Progress, has_bfloat16
from trimtab.spec import Scope, Site

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE

FEATURE_TOKENS = 1_000_000
RECONSTRUCTION_TOKENS = 100_000
LOSS_TOKENS = 16_000
_CHUNK = 2048


def write_card(
    model: Model,
    folder: Path,
    acts: Harvest,
    site: Site,
    *,
    heldout: list[str],
    about: dict[str, Any],
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the SAE in `folder` and add `features.safetensors` (max_act, density: float32 [features]), `card.json`.

    Feature statistics are taken over up to a million harvested tokens; reconstruction and loss on `heldout` texts.
    """
    from safetensors.torch import save_file

    from trimtab.sae.load import open_sae

    sae = open_sae(str(folder))
    limit = acts.manifest["norm_limit"][str(site)]
    max_act, count, tokens = feature_statistics(sae, _shards(acts, site), FEATURE_TOKENS, progress)
    contexts = heldout_contexts(model, heldout, acts.manifest["field"], acts.manifest["context"])
    card = {
        **about,
        "feature_tokens": tokens,
        "alive": float((count > 0).float().mean()),
        "density_median": float((count / tokens).median()),
        "heldout": [Path(text).name for text in heldout],
        **reconstruction(model, sae, contexts, limit),
        **spliced_loss(model, sae, contexts, limit, progress),
        "decoder_max_cosine_mean": float(decoder_max_cosine(sae).mean()),
    }
    with write_file(folder / "features.safetensors") as part:
        save_file({"max_act": max_act, "density": (count / tokens).float()}, part)
    write_json(folder / "card.json", card)
    return card


def heldout_contexts(model: Model, texts: list[str], field: str, length: int) -> list[Context]:
    """Contexts of the texts, as many as the measurements below can use."""
    stream = iter_contexts(
        iter_texts(texts, field=field),
        lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"],
        bos=model.bos_id,
        length=length,
    )
    return list(islice(stream, RECONSTRUCTION_TOKENS // length + 1))


def _shards(acts: Harvest, site: Site) -> Iterator[Tensor]:
    for path in acts.shards():
        yield acts.load([path], site)


@torch.no_grad()
def feature_statistics(
    sae: SAE, shards: Iterator[Tensor], most: int, progress: Callable[[Progress], None] = lambda _: None
) -> tuple[Tensor, Tensor, int]:
    """(largest activation [d_sae], how often each feature fired [d_sae], tokens seen) over at most `most` tokens."""
    max_act, count, seen = torch.zeros(sae.d_sae), torch.zeros(sae.d_sae, dtype=torch.long), 0
    for shard in shards:
        for h in shard[: most - seen].split(_CHUNK):
            f = sae.encode(h)
            max_act = torch.maximum(max_act, f.amax(0).cpu())
            count += (f > 0).sum(0).cpu()
        seen += min(len(shard), most - seen)
        progress(Progress("features", seen, most, "tokens", 0.0))
        if seen >= most:
            break
    return max_act, count, seen


@torch.no_grad()
def reconstruction(model: Model, sae: SAE, contexts: list[Context], limit: float) -> dict[str, float]:
    """FVU (all dimensions, and without the one of largest variance), L0 and tokens used, in float32."""
    from trimtab.lm.residual import read

    parts = []
    for _, ids, mask in batches(contexts, tokens=_CHUNK):
        h = read(model, ids, [sae.site], attention_mask=mask)[sae.site].float().cpu()
        parts.append(h[_kept(h, ids, mask, model.bos_id, limit)])
    x = torch.cat(parts)
    mean = x.mean(0)
    error, active = torch.zeros(sae.d_in), 0
    for h in x.split(_CHUNK):
        f = sae.encode(h)
        active += int((f > 0).sum())
        error += (h - sae.reconstruct(h)).pow(2).sum(0).cpu()
    total = (x - mean).pow(2).sum(0)
    rest = torch.ones(sae.d_in, dtype=torch.bool)
    rest[total.argmax()] = False
    return {
        "reconstruction_tokens": len(x),
        "fvu": float(error.sum() / total.sum()),
        "fvu_without_largest_dimension": float(error[rest].sum() / total[rest].sum()),
        "l0": active / len(x),
    }


def _kept(h: Tensor, ids: Tensor, mask: Tensor, bos: int | None, limit: float) -> Tensor:
    keep = mask.bool() & (h.norm(dim=-1) <= limit)
    return keep & (ids != bos) if bos is not None else keep


@torch.no_grad()
def spliced_loss(
    model: Model,
    sae: SAE,
    contexts: list[Context],
    limit: float,
    progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, float]:
    """Mean next-token cross-entropy (nats): clean, with the SAE's reconstruction spliced in, and with zeros."""
    from trimtab.lm.residual import SiteEdit, edit

    def splice(h: Tensor) -> Tensor:
        return torch.where((h.norm(dim=-1) <= limit)[..., None], sae.reconstruct(h) - h, 0.0)

    def zero(h: Tensor) -> Tensor:
        return torch.where((h.norm(dim=-1) <= limit)[..., None], -h, 0.0)

    wanted = contexts[: LOSS_TOKENS // max(1, len(contexts[0].ids)) + 1]
    loss = {}
    for name, delta in {"clean": None, "spliced": splice, "zero": zero}.items():
        edits = [] if delta is None else [SiteEdit(sae.site, Scope(), None, delta)]
        total, count = 0.0, 0
        for _, ids, mask in batches(wanted, tokens=_CHUNK):
            with edit(model, edits, record=False):
                part, n = _loss(model, ids, mask)
            total, count = total + part, count + n
        loss[name] = total / count
        progress(Progress("loss", len(loss), 3, "passes", 0.0))
    return {
        "loss_tokens": count,
        "ce_clean": loss["clean"],
        "ce_spliced": loss["spliced"],
        "ce_zero": loss["zero"],
        "ce_recovered": (loss["zero"] - loss["spliced"]) / (loss["zero"] - loss["clean"]),
    }


def _loss(model: Model, ids: Tensor, mask: Tensor) -> tuple[float, int]:
    """Summed cross-entropy of every token after the first two (BOS and the first word), and their number."""
    ids, mask = ids.to(model.device), mask.to(model.device)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=has_bfloat16(model.device)):
        logits = model.hf(input_ids=ids, attention_mask=mask, use_cache=False).logits
    logp = torch.log_softmax(logits[:, 1:-1].float(), -1).gather(-1, ids[:, 2:, None]).squeeze(-1)
    real = mask[:, 2:].bool()
    return -float(logp[real].sum()), int(real.sum())


@torch.no_grad()
def decoder_max_cosine(sae: SAE) -> Tensor:
    """For each feature, the largest cosine between its decoder row and another's, [d_sae]."""
    rows = torch.nn.functional.normalize(sae.W_dec, dim=-1)
    best = []
    for start in range(0, len(rows), _CHUNK):
        cosine = rows[start : start + _CHUNK] @ rows.T
        cosine.diagonal(start).fill_(-1.0)
        best.append(cosine.amax(-1))
    return torch.cat(best)
