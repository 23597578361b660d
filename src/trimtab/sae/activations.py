"""Texts -> shards of residual activations on disk, for training SAEs.

A window of contexts becomes one shard file: activations at every site asked for, rows shuffled. A window is a unit of
`trimtab.scale`, so a killed harvest goes on where it stopped and ends with the same files, on whatever machines.
BOS and attention-sink tokens (norms far above all others) are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, MismatchError
from trimtab.files import read_json, write_json
from trimtab.lm.texts import Context, iter_contexts, iter_texts
from trimtab.sae.shards import Shards
from trimtab.scale.folder import Entry, RunFolder
from trimtab.scale.run import LOCAL, Done, On, Say, run_units, sound
from trimtab.scale.store import local_folder, open_store
from trimtab.scale.unit import Unit
from trimtab.spec import Site

if TYPE_CHECKING:
    import torch

    from trimtab.lm.load import Model

CONTEXTS_PER_SHARD = 1024


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
    on: On = LOCAL,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
) -> Harvest:
    """Write the residual activations of at least `tokens` tokens of `texts` at `sites` into `folder`.

    Shards hold bfloat16 [tokens, width] per site (values near 59,000 overflow float16). `autocast` runs the
    matrix products in bfloat16 (default: where the processor has instructions for it); the residual stream
    stays float32. Call again with the same arguments to go on after an interruption; other arguments are refused.
    `on` Ray, several workers make the shards, in a folder that they all have; `say` is told of shards made again.
    """
    from trimtab.lm.sites import check_site

    folder = local_folder(folder)
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
    there = RunFolder(open_store(folder), "harvest")
    for note in there.begin({"spec": settings}):
        say(note)
    _run(Shards(model, tuple(sites), fast, seed), texts, there, manifest, tokens, on, progress, say)
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
    shards: Shards,
    texts: Sequence[str],
    folder: RunFolder,
    manifest: dict[str, Any],
    wanted: int,
    on: On,
    progress: Callable[[Progress], None],
    say: Say,
) -> None:
    there = sound(folder, say)
    enough = sum(shard["tokens"] for shard in manifest["shards"]) >= wanted
    if enough and all(Path(shard["file"]).stem in there for shard in manifest["shards"]):
        return
    before, least = manifest["shards"], len(manifest["shards"])
    manifest["shards"], have, fresh, started = [], 0, 0, time.monotonic()
    windows = _windows(shards.model, texts, manifest)
    for done in _each(shards, windows, folder, there, on, say):
        facts = done.entry.facts
        manifest["norm_limit"] = dict(facts["norm_limit"])
        shard = {"file": f"{done.unit.id}.safetensors", "tokens": facts["tokens"], "read": facts["read"]}
        manifest["shards"].append(shard)
        have += facts["tokens"]
        if done.fresh:
            fresh += facts["tokens"]
            manifest["seconds"] += done.seconds
            shown = {**manifest, "shards": [*manifest["shards"], *before[len(manifest["shards"]) :]]}
            write_json(Path(folder.store.address) / "manifest.json", shown)
            progress(Progress("activations", have, wanted, "tokens", fresh / (time.monotonic() - started)))
        if have >= wanted and len(manifest["shards"]) >= least:
            break
    if not manifest["shards"]:
        raise InputError("The texts hold nothing to read: every text is shorter than 16 tokens.")


def _windows(model: Model, texts: Sequence[str], manifest: dict[str, Any]) -> Iterator[list[Context]]:
    contexts = iter_contexts(
        iter_texts(texts, field=manifest["field"]),
        lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"],
        bos=model.bos_id,
        length=manifest["context"],
    )
    while window := list(islice(contexts, CONTEXTS_PER_SHARD)):
        yield window


def _each(
    shards: Shards,
    windows: Iterator[list[Context]],
    folder: RunFolder,
    there: Mapping[str, Entry],
    on: On,
    say: Say,
) -> Generator[Done]:
    """Every shard in order. The first is made here, since its norms say what a sink is in all of them."""
    limit: Mapping[str, float] = {}
    first = [Unit("shard-00000", (0, window, {})) for window in islice(windows, 1)]
    for done in run_units(shards.open, first, folder, there=there, say=say):
        limit = done.entry.facts["norm_limit"]
        yield done
    rest = (Unit(f"shard-{number:05d}", (number, window, limit)) for number, window in enumerate(windows, 1))
    yield from run_units(shards.open, rest, folder, on, there=there, say=say)


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
