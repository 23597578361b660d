"""On Ray: the bytes of a local run, and a worker that dies costs its unit only."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import FileError, InputError, UnsupportedError, WorkerError
from trimtab.evidence.benchmark.concepts import concept_of
from trimtab.evidence.benchmark.run import run as run_bench
from trimtab.evidence.benchmark.units import BenchSpec, cells_of
from trimtab.evidence.sweep import summarise
from trimtab.find.pairs import ContrastSet
from trimtab.index.build import IndexSpec, build
from trimtab.index.labels import add_labels
from trimtab.index.records import Label
from trimtab.index.store import open_index
from trimtab.sae.activations import harvest
from trimtab.scale.folder import RunFolder
from trimtab.scale.run import On, run_units
from trimtab.scale.store import open_store
from trimtab.scale.unit import Do, Part, Tell, Unit
from trimtab.spec import Sampling
from trimtab.steer.grid import SweepSpec
from trimtab.steer.sweep import sweep
from trimtab.testing.planted import PlantedWorld, planted_world

from .conftest import content

SPEC = SweepSpec(
    prompts=("ab", "some longer prompt"), features=(3, 17), strengths=(2.0, -1.0), ops=("add", "clamp"), seeds=(0, 4),
    sampling=Sampling(max_new_tokens=7),
)  # fmt: skip
TWO = On("ray", 2)


@contextmanager
def mortal() -> Iterator[Do]:
    """A worker that dies over a unit as often as the unit says, and fails over one that says -1."""

    def do(unit: Unit, _tell: Tell) -> Part:
        deaths, mark = unit.work
        if deaths < 0:
            raise InputError(f"{unit.id} cannot be done")
        seen = sorted(Path(mark).glob(f"{unit.id}.*"))
        if len(seen) < deaths:
            (Path(mark) / f"{unit.id}.{len(seen)}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Part({f"{unit.id}.txt": unit.id.encode()})

    yield do


def run(cluster: Any, folder: Path, deaths: dict[int, int]) -> tuple[list[str], list[str]]:
    """(ids in the order in which they were named, what was said)."""
    cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    folder.mkdir(exist_ok=True)
    units = [Unit(f"u-{i:02d}", (deaths.get(i, 0), str(folder))) for i in range(12)]
    said: list[str] = []
    done = run_units(mortal, units, RunFolder(open_store(folder / "run"), "units"), TWO, say=said.append)
    return [one.unit.id for one in done], said


def test_a_sweep_and_its_summary_on_an_object_store_have_the_bytes_of_a_local_run(
    cluster: Any, tmp_path: Path, s3: str
) -> None:
    world = planted_world()
    for place, on in ((str(tmp_path), On()), (f"{s3}/sweep", TWO)):
        summarise(world.model, world.sae, sweep(world.model, world.sae, SPEC, place, batch_size=4, on=on), on=on)
    here = content(tmp_path)
    assert len(here) == 3 + 2 * 2 * 5
    assert {name: open_store(f"{s3}/sweep").read(name) for name in here} == here


def test_a_benchmark_on_an_object_store_has_the_bytes_of_a_local_one(cluster: Any, tmp_path: Path, s3: str) -> None:
    world = planted_world()
    concepts = [
        concept_of(ContrastSet.of(world.texts(name, 24, 1), world.texts(None, 24, 2), name=name))
        for name in ("sea", "fire")
    ]
    dose = tuple(text[:60] for text in world.texts(None, 4, 3))
    spec = BenchSpec(prompts=("the cat saw",), dose_prompts=dose, samples=4, sampling=Sampling(max_new_tokens=8))
    cells = cells_of(["sea", "fire"], ["mean difference", "prompt by examples"], [0.1, 0.3])
    for place, on in ((str(tmp_path), On()), (f"{s3}/bench", TWO)):
        rest = run_bench(world.model, [world.sae], place, spec, concepts, cells, witness=world.sae, on=on)
        assert not rest.cells
    here = content(tmp_path)
    # the manifest; unsteered texts and their entry; entries and scores of 8 cells; texts of 6, recipes of 4; judges
    assert len(here) == 1 + 3 + 2 * 8 + 6 + 4 + 2
    assert {name: open_store(f"{s3}/bench").read(name) for name in here} == here


def test_a_worker_that_dies_costs_its_unit_only(cluster: Any, tmp_path: Path) -> None:
    named, said = run(cluster, tmp_path, {3: 1, 4: 2})
    assert named == [f"u-{i:02d}" for i in range(12)]
    assert sorted(said) == [f"a worker died over u-{i:02d}, which is done again" for i in (3, 4, 4)]
    assert len(content(tmp_path / "run")) == 2 * 12


def test_a_unit_that_kills_every_worker_and_one_that_fails_end_the_run(cluster: Any, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="died 3 times over the unit u-01"):
        run(cluster, tmp_path / "kills", {1: 9})
    with pytest.raises(InputError, match="u-02 cannot be done"):
        run(cluster, tmp_path / "fails", {2: -1})
    assert "u-00.txt" in content(tmp_path / "fails" / "run")


def test_what_ray_cannot_do(cluster: Any) -> None:
    units = [Unit("a", (0, ""))]
    with pytest.raises(UnsupportedError, match="memory of this process"):
        list(run_units(mortal, units, RunFolder(open_store("memory://x"), "units"), TWO))
    with pytest.raises(InputError, match="2 processors, not 3 workers"):
        list(run_units(mortal, units, RunFolder(open_store("/tmp"), "units"), On("ray", 3, 1)))


def test_a_harvest_has_the_bytes_of_a_local_one(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtab.sae.activations.CONTEXTS_PER_SHARD", 8)
    world = planted_world()
    texts = tmp_path / "texts.jsonl"
    rows = [" ".join(world.texts(concept, 12, 0)) for concept in world.words]
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    made = {
        place: harvest(
            world.model, [str(texts)], [world.site], tmp_path / place, tokens=600, context=32, autocast=False, on=on
        )
        for place, on in (("local", On()), ("ray", TWO))
    }
    assert made["ray"].tokens == made["local"].tokens >= 600
    assert len(made["ray"].shards()) >= 3
    for mine, theirs in zip(made["ray"].shards(), made["local"].shards(), strict=True):
        assert mine.read_bytes() == theirs.read_bytes()


SPEC_OF_INDEX = IndexSpec(context=24, window=5, top=4, random=3, per_band=2, words=500, partners=500)


def texts_of(world: PlantedWorld, folder: Path) -> Path:
    """A corpus with every concept of the world in it."""
    rows = [text for concept in (None, *world.words) for text in world.texts(concept, 12, 0)]
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return path


def test_an_index_has_the_bytes_of_a_local_build_and_goes_on_after_a_kill(cluster: Any, tmp_path: Path) -> None:
    world = planted_world()
    texts = texts_of(world, tmp_path)
    build(world.model, world.sae, [str(texts)], tmp_path / "local", SPEC_OF_INDEX)
    calls = 0

    def die(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    there = tmp_path / "ray"
    with pytest.raises(KeyboardInterrupt):
        build(world.model, world.sae, [str(texts)], there, SPEC_OF_INDEX, on=TWO, progress=die)
    found = sorted(path.stem for path in (there / "windows").iterdir())
    assert len(found) >= 3
    times = {path: path.stat().st_mtime_ns for path in (there / "windows").iterdir()}
    last = there / "windows" / f"{found[-1]}.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    said: list[str] = []
    seen: list[int] = []

    def look(_: object) -> None:
        seen.append(sum(path.stat().st_mtime_ns == at for path, at in times.items() if path.exists()))

    build(world.model, world.sae, [str(texts)], there, SPEC_OF_INDEX, on=TWO, progress=look, say=said.append)
    assert seen[0] == len(found) - 1  # what was there and sound has not been made again
    assert len(said) == 1
    assert "is written again" in said[0]
    assert content(there) == content(tmp_path / "local")
    part = there / "features" / "00000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    build(world.model, world.sae, [str(texts)], there, SPEC_OF_INDEX, say=said.append)
    assert "the index is built again" in said[-1]
    assert part.read_bytes() == whole


def test_an_index_on_an_object_store_goes_on_on_another_machine(
    cluster: Any, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = planted_world()
    texts = texts_of(world, tmp_path)
    whole: list[int] = []
    local = build(
        world.model,
        world.sae,
        [str(texts)],
        tmp_path / "local",
        SPEC_OF_INDEX,
        progress=lambda now: whole.append(now.done),
    )
    at, there = f"{s3}/index", open_store(f"{s3}/index")
    calls = 0

    def die(_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt

    machines = [tmp_path / f"machine-{i}" for i in range(3)]
    for machine, on in zip(machines, (On(), TWO, On()), strict=True):
        monkeypatch.setenv("TRIMTAB_CACHE", str(machine))
        calls = 0
        if machine != machines[-1]:
            with pytest.raises(KeyboardInterrupt):
                build(world.model, world.sae, [str(texts)], at, SPEC_OF_INDEX, on=on, progress=die, save_every=0)
            assert there.exists("state/state.safetensors")
            with pytest.raises(FileError, match="unfinished build"):
                open_index(at)
    seen: list[int] = []
    index = build(world.model, world.sae, [str(texts)], at, SPEC_OF_INDEX, progress=lambda now: seen.append(now.done))
    assert 0 < len(seen) <= len(whole) - 4  # what two machines had done is not done again
    here = content(tmp_path / "local")
    assert {name: there.read(name) for name in here} == here
    assert there.names("state/*") == there.names("windows/*") == []
    add_labels(index, {3: Label("waves", "by hand", None)})
    monkeypatch.setenv("TRIMTAB_CACHE", str(machines[0]))
    again = open_index(at)
    assert again.folder != index.folder
    assert again.feature(2) == local.feature(2)
    assert again.labels([3])[3][0].text == "waves"
    part = there.read("features/00000.parquet")
    there.write("features/00000.parquet", part[:-1])
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path / "fourth"))
    with pytest.raises(FileError, match=r"features/00000.parquet is damaged .* build the index again"):
        open_index(at)
    said: list[str] = []
    build(world.model, world.sae, [str(texts)], at, SPEC_OF_INDEX, say=said.append)
    assert "the index is built again" in said[0]
    assert there.read("features/00000.parquet") == part
