"""Texts -> shards of residual activations on disk, for training SAEs.

A window of contexts becomes one shard file: activations at every site asked for, rows shuffled. A window is a
unit of work with a fixed content, so a killed harvest goes on where it stopped and ends with the same files.
BOS and attention-sink tokens (norms far above all others) are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, MismatchError
from trimtab.files import read_json, write_file, write_json
from trimtab.lm.texts import Context, batches, iter_contexts, iter_texts
from trimtab.spec import Site

if TYPE_CHECKING:
    import torch

    from trimtab.lm.load import Model

CONTEXTS_PER_SHARD = 1024
TOKENS_PER_BATCH = 2048
# A token is a sink when its norm exceeds this multiple of the 99.9th percentile of the first shard's norms.
SINK_FACTOR = 1.5


@dataclass(frozen=True)
class Harvest:
    """A folder of activation shards: `sites`, `width`, tokens kept and read, and how it was made."""

    folder: Path
    sites: tuple[Site, ...]
    width: int
    tokens: int
    manifest: dict[str, Any]

    def shards(self) -> list[Path]:
        """Shard files in the order in which they were made."""
        return [self.folder / shard["file"] for shard in self.manifest["shards"]]

    def load(self, paths: Sequence[Path], site: Site) -> torch.Tensor:
        """Activations of some shards at one site, [tokens, width] bfloat16."""
        import torch
        from safetensors import safe_open

        parts = []
        for path in paths:
            with safe_open(path, "pt") as file:
                parts.append(file.get_tensor(str(site)))
        return torch.cat(parts)


@dataclass(frozen=True)
class Progress:
    """What a long job says while it runs: `done` of `total` in `unit`, at `rate` per second."""

    stage: str
    done: int
    total: int
    unit: str
    rate: float
    note: str = ""


def open_harvest(folder: str | Path) -> Harvest:
    """Open a folder written by `harvest`; raises `FileError` when it is not one."""
    folder = Path(folder)
    manifest = read_json(folder / "manifest.json")
    return Harvest(
        folder,
        tuple(Site.of(name) for name in manifest["sites"]),
        manifest["width"],
        sum(shard["tokens"] for shard in manifest["shards"]),
        manifest,
    )


def harvest(
    model: Model,
    texts: Sequence[str],
    sites: Sequence[Site],
    folder: str | Path,
    *,
    tokens: int,
    context: int = 128,
    field: str = "text",
    seed: int = 0,
    autocast: bool | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Harvest:
    """Write the residual activations of at least `tokens` tokens of `texts` at `sites` into `folder`.

    Shards hold bfloat16 [tokens, width] per site (values near 59,000 overflow float16). `autocast` runs the
    matrix products in bfloat16 (default: where the processor has instructions for it); the residual stream
    stays float32. Call again with the same arguments to go on after an interruption; other arguments are refused.
    """
    from trimtab.lm.sites import check_site

    folder = Path(folder)
    for site in sites:
        check_site(site, model.n_layers)
    fast = has_bfloat16(model.device) if autocast is None else autocast
    settings = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "sites": [str(site) for site in sites],
        "width": model.d_model,
        "texts": [Path(text).name for text in texts],
        "field": field,
        "context": context,
        "seed": seed,
        "autocast": fast,
    }
    manifest = _manifest(folder, settings)
    _run(model, texts, sites, folder, manifest, tokens, progress)
    return open_harvest(folder)


def _manifest(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    if not (folder / "manifest.json").exists():
        return {**settings, "norm_limit": {}, "shards": [], "seconds": 0.0}
    manifest: dict[str, Any] = read_json(folder / "manifest.json")
    changed = [f"{k}: {manifest.get(k)!r} there, {v!r} now" for k, v in settings.items() if manifest.get(k) != v]
    if changed:
        raise MismatchError(f"{folder} holds another harvest ({'; '.join(changed)}). Choose another folder.")
    return manifest


def _run(
    model: Model,
    texts: Sequence[str],
    sites: Sequence[Site],
    folder: Path,
    manifest: dict[str, Any],
    wanted: int,
    progress: Callable[[Progress], None],
) -> None:
    have = sum(shard["tokens"] for shard in manifest["shards"])
    if have >= wanted:
        return
    contexts = iter_contexts(
        iter_texts(texts, field=manifest["field"]),
        lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"],
        bos=model.bos_id,
        length=manifest["context"],
    )
    for _ in islice(contexts, len(manifest["shards"]) * CONTEXTS_PER_SHARD):
        pass  # already harvested
    started, fresh = time.monotonic(), 0
    while have < wanted:
        window = list(islice(contexts, CONTEXTS_PER_SHARD))
        if not window:
            if not manifest["shards"]:
                raise InputError("The texts hold nothing to read: every text is shorter than 16 tokens.")
            break
        clock = time.monotonic()
        number = len(manifest["shards"])
        acts, read_tokens = _window(model, window, sites, manifest)
        acts = _without_sinks(acts, manifest)
        kept = _write_shard(folder / f"shard-{number:05d}.safetensors", acts, manifest["seed"] + number)
        manifest["shards"].append({"file": f"shard-{number:05d}.safetensors", "tokens": kept, "read": read_tokens})
        manifest["seconds"] += time.monotonic() - clock
        write_json(folder / "manifest.json", manifest)
        have, fresh = have + kept, fresh + kept
        progress(Progress("activations", have, wanted, "tokens", fresh / (time.monotonic() - started)))


def _window(
    model: Model, window: Sequence[Context], sites: Sequence[Site], manifest: dict[str, Any]
) -> tuple[dict[str, torch.Tensor], int]:
    import torch

    from trimtab.lm.residual import read

    kept: dict[str, list[torch.Tensor]] = {str(site): [] for site in sites}
    read_tokens = 0
    with torch.autocast(model.device.type, torch.bfloat16, enabled=manifest["autocast"]):
        for _, ids, mask in batches(window, tokens=TOKENS_PER_BATCH):
            keep = mask.bool()
            if model.bos_id is not None:
                keep &= ids != model.bos_id
            read_tokens += int(mask.sum())
            for site, h in read(model, ids, list(sites), attention_mask=mask).items():
                kept[str(site)].append(h.cpu()[keep].to(torch.bfloat16))
    return {site: torch.cat(parts) for site, parts in kept.items()}, read_tokens


def _without_sinks(acts: dict[str, torch.Tensor], manifest: dict[str, Any]) -> dict[str, torch.Tensor]:
    norms = {site: h.float().norm(dim=-1) for site, h in acts.items()}
    if not manifest["norm_limit"]:
        manifest["norm_limit"] = {
            site: SINK_FACTOR * float(n.kthvalue(max(1, round(0.999 * len(n)))).values) for site, n in norms.items()
        }
    return {site: acts[site][norms[site] <= manifest["norm_limit"][site]] for site in acts}


def _write_shard(path: Path, acts: dict[str, torch.Tensor], seed: int) -> int:
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    shuffled = {site: h[torch.randperm(len(h), generator=generator)] for site, h in acts.items()}
    with write_file(path) as part:
        save_file(shuffled, part)
    return min(len(h) for h in shuffled.values())


def has_bfloat16(device: torch.device) -> bool:
    """Whether `device` has instructions for bfloat16 matrix products (elsewhere they are slower than float32)."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def stream(
    source: Harvest, site: Site, *, batch: int, seed: int, skip: int = 0, mix: int = 16
) -> Iterator[torch.Tensor]:
    """Endless shuffled batches [batch, width] float32 of a harvest, pass after pass.

    Each pass takes the shards in a new order, `mix` at a time, and shuffles the rows of those together. Depends
    only on (harvest, seed), so `skip` batches can be left out exactly when training resumes. Rows that do not
    fill a batch at the end of a group are carried over to the next one.
    """
    import torch

    shards, epoch, rest = source.shards(), 0, None
    tokens = [shard["tokens"] for shard in source.manifest["shards"]]
    if sum(tokens) < batch:
        raise InputError(f"The harvest holds {sum(tokens)} tokens, fewer than one batch of {batch}.")
    while True:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        order = torch.randperm(len(shards), generator=generator).tolist()
        for start in range(0, len(order), mix):
            h = source.load([shards[i] for i in order[start : start + mix]], site)
            h = h[torch.randperm(len(h), generator=generator)]
            h = h if rest is None else torch.cat([rest, h])
            full = len(h) // batch * batch
            for i in range(0, full, batch):
                if skip > 0:
                    skip -= 1
                    continue
                yield h[i : i + batch].float()
            rest = h[full:].clone()
        epoch += 1
