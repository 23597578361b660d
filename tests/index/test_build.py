"""A build on a tiny model: against reading each context alone, resumed after kills, and refused where it must be."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from reference import Piece, reference  # type: ignore[import-not-found]

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.index import events as events_module
from trimtab.index.build import IndexSpec, build
from trimtab.index.store import Index, open_index
from trimtab.lm.residual import read
from trimtab.lm.texts import iter_contexts, iter_texts
from trimtab.sae.activations import Progress
from trimtab.testing.planted import PlantedWorld

SPEC = IndexSpec(context=24, window=20, top=4, random=3, per_band=2, words=500, partners=500)  # as in conftest.py


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_against_each_context_alone(
    world: PlantedWorld, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Activations agree up to rounding, everything that they decide agrees exactly."""
    monkeypatch.setattr(events_module, "TOKENS_PER_BATCH", 100)
    index = build(world.model, world.sae, [corpus], tmp_path / "index", SPEC)
    model, limit = world.model, index.about["sink_limit"]
    pieces, norms = [], []
    encode = lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"]  # noqa: E731
    for context in iter_contexts(iter_texts([corpus]), encode, bos=model.bos_id, length=SPEC.context):
        h = read(model, torch.tensor([context.ids]), [world.site])[world.site][0]
        f = world.sae.encode(h)
        fires: list[dict[int, float] | None] = [None]
        for row, size in zip(f[1:], h[1:].norm(dim=-1).tolist(), strict=True):
            norms.append(size)
            fires.append({i: float(row[i]) for i in row.nonzero()[:, 0].tolist()} if size <= limit else None)
        pieces.append(Piece(list(context.ids), fires, context.document, context.source))
    truth = reference(pieces, SPEC, world.sae.d_sae)
    assert index.tokens == sum(size <= limit for size in norms) < len(norms) + 1
    assert index.about["contexts"] == len(pieces) > 4 * SPEC.window
    for number, one in truth.items():
        got = index.feature(number)
        assert got.count == one["count"]
        assert got.max == pytest.approx(one["max"], rel=1e-5)
        assert got.mean == pytest.approx(one["mean"], rel=1e-5)
        assert {w.token: w.count for w in index.words([number], 999).get(number, ())} == one["words"]
        assert dict(got.sources) == one["sources"]
        for kind in ("top", "random"):
            mine = [e for e in got.examples if e.kind == kind]
            theirs = one["examples"].get(kind, [])
            assert len(mine) == len(theirs)
            for a, b in zip(mine, theirs, strict=True):
                assert a.value == pytest.approx(b["value"], rel=1e-5)
                if kind == "random":
                    assert (a.context, a.position, a.ids, a.at) == (b["context"], b["position"], b["ids"], b["at"])
                    assert a.values == pytest.approx(b["values"], rel=1e-5, abs=1e-5)
    fire = index.feature(world.concepts["fire"])
    assert {w.text for w in fire.words} <= set(world.words["fire"])


def test_progress_tells_about_how_much_is_left(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    tokens = build(world.model, world.sae, [corpus], tmp_path / "all", SPEC, progress=seen.append).tokens
    assert len(seen) > 4
    assert (seen[-1].done, seen[-1].total) == (tokens, tokens)
    assert all(abs(p.total - tokens) < 0.5 * tokens for p in seen[len(seen) // 2 :])
    wanted = SPEC.model_copy(update={"tokens": 10 * tokens})
    build(world.model, world.sae, [corpus], tmp_path / "more", wanted, progress=seen.append)
    assert seen[-1].total == tokens
    few = SPEC.model_copy(update={"tokens": tokens // 2})
    build(world.model, world.sae, [corpus], tmp_path / "few", few, progress=seen.append)
    assert seen[-1].total in (tokens // 2, seen[-1].done)


def test_killed_builds_end_with_the_same_bytes(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    whole = build(world.model, world.sae, [corpus], tmp_path / "whole", SPEC)
    calls = 0

    def die(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise KeyboardInterrupt

    for _ in range(10):
        try:
            build(world.model, world.sae, [corpus], tmp_path / "killed", SPEC, progress=die, save_every=0)
            break
        except KeyboardInterrupt:
            with pytest.raises(FileError, match="unfinished"):
                open_index(tmp_path / "killed")
    assert calls > 5
    assert files(tmp_path / "killed") == files(whole.folder)
    again = build(world.model, world.sae, [corpus], tmp_path / "killed", SPEC)
    assert again.about == whole.about


def test_kill_minus_nine_at_ten_random_moments(corpus: str, world: PlantedWorld, tmp_path: Path) -> None:
    """A process that has loaded everything forks a child for each try, so that ten kills cost no ten starts."""
    whole = build(world.model, world.sae, [corpus], tmp_path / "whole", SPEC)
    script = (
        "import os, random, signal, sys, threading, time\n"
        "import torch\n"
        "torch.set_num_threads(1)\n"
        "from trimtab.testing.planted import planted_world\n"
        "from trimtab.index.build import IndexSpec, build\n"
        "w, draw = planted_world(), random.Random(0)\n"
        f"spec, folder = IndexSpec.parse({SPEC.model_dump()!r}), sys.argv[1]\n"
        "kills, longest = 0, 0.8\n"
        "while kills < 10:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        f"        build(w.model, w.sae, [{corpus!r}], folder, spec, save_every=0)\n"
        "        os._exit(0)\n"
        "    time.sleep(draw.uniform(0, longest))\n"
        "    os.kill(child, signal.SIGKILL)\n"
        "    _, status = os.waitpid(child, 0)\n"
        "    if os.WIFSIGNALED(status):\n"
        "        kills += 1\n"
        "    else:\n"  # it was done before the kill
        "        import shutil\n"
        "        shutil.rmtree(folder)\n"
        "        longest /= 2\n"
        "print(kills)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, tmp_path / "killed"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    assert done.stdout.strip() == "10"
    build(world.model, world.sae, [corpus], tmp_path / "killed", SPEC)
    assert files(tmp_path / "killed") == files(whole.folder)


def test_stops_at_the_tokens_asked_for(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    seen = []
    spec = SPEC.model_copy(update={"tokens": 500})
    index = build(world.model, world.sae, [corpus], tmp_path / "index", spec, progress=seen.append)
    assert 500 <= index.tokens < 500 + SPEC.window * SPEC.context
    assert [one.done for one in seen][-1] == index.tokens
    assert seen[-1].total == 500


def test_bos_never_fires_and_sinks_do_not_count(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    """BOS fires every reader strongly in this world; the largest activation must come from a word."""
    index = build(world.model, world.sae, [corpus], tmp_path / "index", SPEC)
    bos = world.model.bos_id
    assert index.query("from words where token = ?", [bos]) == []
    assert all(bos not in e.ids for e in index.feature(world.readers["sea"]).examples)


def test_sequence_normalised_saes_are_encoded_text_by_text(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    sae = replace(world.sae, normalisation="sequence")
    index = build(world.model, sae, [corpus], tmp_path / "index", SPEC)
    example = max((e for e in index.feature(world.concepts["sea"]).examples), key=lambda e: e.value)
    model = world.model
    encode = lambda batch: model.tokenizer(batch, add_special_tokens=False)["input_ids"]  # noqa: E731
    contexts = list(iter_contexts(iter_texts([corpus]), encode, bos=model.bos_id, length=SPEC.context))
    ids = torch.tensor([contexts[example.context].ids])
    alone = sae.encode(read(model, ids, [world.site])[world.site][0])
    assert float(alone[example.position, world.concepts["sea"]]) == pytest.approx(example.value, rel=1e-4)


def test_refusals(world: PlantedWorld, corpus: str, tmp_path: Path) -> None:
    build(world.model, world.sae, [corpus], tmp_path / "index", SPEC)
    with pytest.raises(MismatchError, match="holds another index"):
        build(world.model, world.sae, [corpus], tmp_path / "index", SPEC.model_copy(update={"seed": 1}))
    with pytest.raises(InputError, match="at most 256 tokens"):
        build(world.model, world.sae, [corpus], tmp_path / "long", SPEC.model_copy(update={"context": 300}))
    with pytest.raises(FileError, match="is not an index"):
        open_index(tmp_path)
    (tmp_path / "short.txt").write_text("the cat .")
    with pytest.raises(InputError, match="nothing to read"):
        build(world.model, world.sae, [str(tmp_path / "short.txt")], tmp_path / "none", SPEC)
    assert not (tmp_path / "none" / "index.json").exists()
    index = open_index(tmp_path / "index")
    with pytest.raises(InputError, match="0 to 29"):
        index.feature(30)
    assert isinstance(index, Index)


def test_residuals_that_are_not_finite_are_refused(
    world: PlantedWorld, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> dict[object, torch.Tensor]:
        found = read(*args, **options)  # type: ignore[arg-type]
        return {site: h.index_fill(1, torch.tensor([2]), float("nan")) for site, h in found.items()}

    monkeypatch.setattr(events_module, "read", broken)
    with pytest.raises(InputError, match="not finite in document"):
        build(world.model, world.sae, [corpus], tmp_path / "index", SPEC)
