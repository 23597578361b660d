"""One pass over texts -> an index of every feature: examples, histograms, tokens, partners, sources.

A window of contexts is the unit of work. What is known after each window is a pure function of the windows before it,
so the state can be saved at any time: a killed build goes on from the last save and ends with the same bytes. Exact
duplicates among the texts, BOS and attention sinks are left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import InputError, MismatchError
from trimtab.files import write_json
from trimtab.index.remote import ABOUT, KIND, STATE, TABLES, TOKENS, copy_of, publish, pull_state, push_state
from trimtab.index.sample import BINS, LOWEST
from trimtab.index.spec import IndexSpec
from trimtab.index.state import State, saved_about
from trimtab.index.store import FORMAT, Index, open_index
from trimtab.lm.packed import packed_layers
from trimtab.lm.texts import Context, iter_contexts, iter_texts, total_bytes
from trimtab.sae.activations import Progress
from trimtab.sae.firing import finder
from trimtab.scale.folder import FORMAT as RUN_FORMAT
from trimtab.scale.folder import RunFolder
from trimtab.scale.run import LOCAL, On, Say
from trimtab.scale.store import Store, open_store

if TYPE_CHECKING:
    from trimtab.lm.model import Model
    from trimtab.sae.sae import SAE

__all__ = ["IndexSpec", "build"]

_SAMPLE = 1 << 20  # bytes of each end of a file that stand for its content


def build(
    model: Model,
    sae: SAE,
    texts: Sequence[str],
    folder: str | PathLike[str] | Store,
    spec: IndexSpec | None = None,
    *,
    on: On = LOCAL,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Say = lambda _: None,
    save_every: float = 60.0,
) -> Index:
    """Index the features of `sae` over `texts` (files or dataset names) into `folder`, and open it.

    `folder` is a path or an address such as s3://bucket/index, of which this machine then has a copy (`index.remote`).
    Stops after the first window that brings the tokens kept to `spec.tokens` (None: all texts). Call again with the
    same arguments to go on after an interruption; the state is saved every `save_every` seconds. `on` Ray, workers
    read the windows, and the folder must be where they all have it; the result is the same. `say` is told what a person
    should know. Raises `MismatchError` when the folder holds an index of something else, `InputError` when there is
    nothing to read.
    """
    spec, place = spec or IndexSpec(), open_store(folder)
    if model.context is not None and spec.context > model.context:
        raise InputError(f"{model.name} reads at most {model.context} tokens at once, not {spec.context}.")
    about = _about(model, sae, texts, spec)
    run = RunFolder(place, KIND)
    if place.exists(ABOUT):
        _same(about, place.read_json(ABOUT), place)
        wrong = [line for entry in run.entries().values() for line in run.wrong(entry)]
        if not wrong:
            _remove_state(run)
            return open_index(place)
        say(f"{', '.join(wrong)} in {place}: the index is built again")
        place.remove(ABOUT)
    here = pull_state(place)
    vocabulary = int(model.hf.get_input_embeddings().weight.shape[0])
    state = State(spec, sae.d_sae, vocabulary, here / STATE)
    if (here / STATE).is_file():
        _same(about, saved_about(here / STATE), place)
        state.restore()
    for note in run.begin({**about, "format": RUN_FORMAT}):
        say(note)
    saved = state.texts.length

    def save() -> None:
        nonlocal saved
        state.save(about)
        push_state(place, saved, state.texts.length)
        saved = state.texts.length

    if on.where == "local":
        _run(model, sae, texts, state, progress, save_every, save)
    else:
        _run_many(model, sae, texts, state, run, on, progress, save_every, save, say)
    if not state.tokens:
        raise InputError("The texts hold nothing to read: every text is shorter than 16 tokens.")
    _finish(model, state, run, about)
    return open_index(place)


def _run_many(
    model: Model,
    sae: SAE,
    texts: Sequence[str],
    state: State,
    run: RunFolder,
    on: On,
    progress: Callable[[Progress], None],
    save_every: float,
    save: Callable[[], None],
    say: Say,
) -> None:
    """`_run` by many workers. Windows that no saved state has yet stay until the tables are written."""
    from trimtab.index.many import Reader, merge

    wanted, before, size = state.spec.tokens or 0, state.tokens, total_bytes(texts)
    if wanted and before >= wanted:
        return
    started = time.monotonic()
    windows = _windows(model, texts, state.spec, skip=state.contexts)
    with closing(merge(Reader(model, sae), windows, state, run, on, save, save_every, say)) as merging:
        for tokens, read in merging:
            rate = (tokens - before) / max(1e-9, time.monotonic() - started)
            progress(Progress("index", tokens, _expected(tokens, wanted, read, size), "tokens", rate))
            if wanted and tokens >= wanted:
                break


def _run(
    model: Model,
    sae: SAE,
    texts: Sequence[str],
    state: State,
    progress: Callable[[Progress], None],
    save_every: float,
    save: Callable[[], None],
) -> None:
    from trimtab.index.events import events

    spec = state.spec
    wanted = spec.tokens or 0
    if wanted and state.tokens >= wanted:
        return
    find = finder(sae)
    started = saved = time.monotonic()
    before = tokens = state.tokens
    contexts, limit, size = state.contexts, state.limit, total_bytes(texts)
    # A window is merged by another thread while the model reads the next one; `state` is that thread's until then.
    with packed_layers(model), ThreadPoolExecutor(1) as merger:
        merging: Future[None] | None = None
        for window in _windows(model, texts, spec, skip=contexts):
            found, limit = events(model, sae, window, contexts, limit, find)
            contexts, tokens = contexts + len(window), tokens + int(found.kept.sum())
            if merging is not None:
                merging.result()
                if time.monotonic() - saved >= save_every:
                    save()
                    saved = time.monotonic()
            state.limit = limit
            merging = merger.submit(state.add, found)
            rate = (tokens - before) / max(1e-9, time.monotonic() - started)
            progress(Progress("index", tokens, _expected(tokens, wanted, window[-1].read, size), "tokens", rate))
            if wanted and tokens >= wanted:
                break
        if merging is not None:
            merging.result()


def _expected(tokens: int, wanted: int, read: float, size: int | None) -> int:
    """About how many tokens there will be in the end (0: not known), from the share of the files that was read."""
    if not size or not read:
        return wanted
    whole = max(tokens, round(tokens * size / min(read, size)))
    return min(wanted, whole) if wanted else whole


def _windows(model: Model, texts: Sequence[str], spec: IndexSpec, skip: int) -> Iterator[list[Context]]:
    stream = iter_contexts(
        iter_texts(texts, field=spec.field),
        lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"],
        bos=model.bos_id,
        length=spec.context,
    )
    stream = islice(stream, skip, None)
    while window := list(islice(stream, spec.window)):
        yield window


def _finish(model: Model, state: State, run: RunFolder, about: dict[str, Any]) -> None:
    from trimtab.index.tables import write_tables

    folder = copy_of(run.store)

    def decode(ids: list[int]) -> list[str]:
        return list(model.tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False))

    write_tables(state, folder, decode)
    source_tokens = state.arrays["source_tokens"].tolist()
    about = {
        **about,
        "tokens": state.tokens,
        "contexts": state.contexts,
        "sources": dict(zip(state.sources, source_tokens, strict=True)),
        "sink_limit": state.limit,
        "histogram": {"scale": "2^(first + bin / 4)", "first": LOWEST, "bins": BINS},
    }
    for left in folder.rglob(".*"):  # of a process that was killed while it wrote
        if left.name.startswith((".state.", ".0", ".tokens.", ".index.")):
            left.unlink()
    publish(folder, run.store, TABLES)
    tables = [name for table in TABLES for name in run.store.names(table)]
    run.note("tables", tables, {"tokens": state.tokens})
    write_json(folder / ABOUT, about)
    publish(folder, run.store, [ABOUT])
    _remove_state(run)


def _remove_state(run: RunFolder) -> None:
    from trimtab.index.many import forget_all

    folder = copy_of(run.store)
    for name in (STATE, TOKENS):
        (folder / name).unlink(missing_ok=True)
    for name in run.store.names("state/*"):
        run.store.remove(name)
    forget_all(run)
    if (folder / "windows").is_dir():
        (folder / "windows").rmdir()


def _about(model: Model, sae: SAE, texts: Sequence[str], spec: IndexSpec) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "model": _name(model.name),
        "model_fingerprint": model.fingerprint,
        "sae": _name(sae.name),
        "sae_fingerprint": sae.fingerprint,
        "site": str(sae.site),
        "features": sae.d_sae,
        "texts": [_digest(text) for text in texts],
        "spec": spec.model_dump(),
    }


def _name(name: str) -> str:
    """A name to show: of something opened from a folder, the folder's, so that an index can be passed on."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name


def _digest(text: str) -> dict[str, Any]:
    """What identifies a source of texts: a file by its size and its first and last megabyte, a dataset by its name."""
    path = Path(text)
    if not path.is_file():
        return {"name": text}
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        digest.update(file.read(_SAMPLE))
    return {"name": path.name, "bytes": size, "sha256_of_ends": digest.hexdigest()}


def _same(now: dict[str, Any], there: dict[str, Any], folder: Store) -> None:
    changed = [f"{key}: {there.get(key)} there, {value} now" for key, value in now.items() if there.get(key) != value]
    if changed:
        raise MismatchError(
            f"{folder} holds another index ({'; '.join(changed)}). Choose another folder, or delete that one."
        )
