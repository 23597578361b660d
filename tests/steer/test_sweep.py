"""Sweeps: the rows are those of `generate`, a killed sweep ends with the same bytes, and another sweep is refused."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.evidence.sweep import summarise
from trimtab.lm.cache import RowCache
from trimtab.lm.decode import Progress
from trimtab.lm.model import Model
from trimtab.lm.residual import read
from trimtab.sae.sae import SAE
from trimtab.spec import Sampling
from trimtab.steer.generate import generate
from trimtab.steer.grid import SweepSpec
from trimtab.steer.recipe import Recipe
from trimtab.steer.run_folder import open_run
from trimtab.steer.sweep import estimate, sweep
from trimtab.testing.planted import PlantedWorld, planted_world

SPEC = SweepSpec(
    prompts=("ab", "some longer prompt"),
    features=(3, 17, 5),
    strengths=(2.0, -1.0),
    ops=("add", "clamp", "ablate"),
    seeds=(0, 4),
    sampling=Sampling(max_new_tokens=7),
)
ROWS = (1 + 3 * (2 + 2 + 1)) * 2 * 2


@pytest.fixture(scope="module")
def sae(make_sae: Any) -> SAE:
    made: SAE = make_sae("jumprelu")
    return made


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("rows-*.parquet"))}


def test_every_row_is_what_generate_writes(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    run = sweep(tiny, sae, SPEC, tmp_path / "run", batch_size=8)
    assert (run.done, run.rows) == (ROWS, ROWS) == (SPEC.n_rows, SPEC.n_rows)
    texts = list(run.texts())
    assert [one["row"] for one in texts] == list(range(ROWS))
    grid = {(one["op"], one["feature"], one["strength"], one["prompt"], one["seed"]) for one in texts}
    assert len(grid) == ROWS
    for one in texts:
        recipe = {
            None: lambda one: None,
            "add": lambda one: Recipe.add(sae, {one["feature"]: one["strength"]}),
            "clamp": lambda one: Recipe.clamp(sae, {one["feature"]: one["strength"]}),
            "ablate": lambda one: Recipe.ablate(sae, [one["feature"]]),
        }[one["op"]](one)
        (expected,) = generate(tiny, one["prompt"], recipe, max_new_tokens=7, seed=one["seed"])
        assert tuple(one["token_ids"]) == expected.token_ids
        assert (one["text"], one["generated_from"]) == (expected.text, expected.generated_from)
        assert one["finished"] == expected.finished
    assert len({tuple(one["token_ids"]) for one in texts}) > ROWS / 2


class Killed(Exception):
    """What ends a sweep in the middle."""


@pytest.mark.parametrize("after", [1, 9, 20, 27])
def test_a_killed_sweep_goes_on_to_the_same_bytes(tiny: Model, sae: SAE, tmp_path: Path, after: int) -> None:
    sweep(tiny, sae, SPEC, tmp_path / "whole", batch_size=8)
    steps = 0

    def kill(_now: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            raise Killed

    with pytest.raises(Killed):
        sweep(tiny, sae, SPEC, tmp_path / "run", batch_size=8, progress=kill)
    before = parts(tmp_path / "run")
    assert before.keys() < parts(tmp_path / "whole").keys()
    assert open_run(tmp_path / "run").done == 16 * len(before)
    seen: list[Progress] = []
    run = sweep(tiny, sae, SPEC, tmp_path / "run", progress=seen.append)  # the batch size is the folder's
    assert parts(tmp_path / "run") == parts(tmp_path / "whole")
    assert run.done == ROWS
    assert seen[0].left <= 7 * (ROWS - 16 * len(before))
    assert (seen[-1].done, seen[-1].left) == (ROWS, 0)
    assert seen[-1].tokens == sum(len(one["token_ids"]) - one["generated_from"] for one in run.texts()) - sum(
        len(one["token_ids"]) - one["generated_from"] for one in list(run.texts())[: 16 * len(before)]
    )


# A fresh process that has loaded everything and computed nothing forks a child for each try: forking the test's own
# process, whose libraries have started threads by then, may hang, and starting one from nothing takes seconds.
SCRIPT = """
import os, random, shutil, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from trimtab.steer.grid import SweepSpec
from trimtab.steer.sweep import sweep
from trimtab.testing.planted import planted_world
world, folder, work = planted_world(), Path(sys.argv[1]), sys.argv[3]
spec = SweepSpec.model_validate_json(sys.argv[2])

def tried():
    child = os.fork()
    if child == 0:
        sweep(world.model, world.sae, spec, folder, batch_size=8)
        os._exit(0)
    return child

if work == "dies while it puts the third part in place":
    put = Path.replace
    def die(self, target):
        if target.name == "rows-00002.parquet":
            os.kill(os.getpid(), signal.SIGKILL)
        return put(self, target)
    Path.replace = die
    print(os.waitstatus_to_exitcode(os.waitpid(tried(), 0)[1]))
else:
    draw, kills, longest = random.Random(work), 0, 0.6
    while True:
        child = tried()
        time.sleep(draw.uniform(0, longest))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            if kills >= 3:
                break
            kills, longest = 0, longest / 2  # a fast machine: again, with earlier kills
            shutil.rmtree(folder)
            continue
        kills, longest = kills + 1, longest * (1.2 if kills > 8 else 1)
    print(kills)
"""


def in_another_process(folder: Path, work: str) -> int:
    """What the script says of `work` in `folder`."""
    command = [sys.executable, "-c", SCRIPT, folder, SPEC.model_dump_json(), work]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return int(subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True).stdout)


@pytest.fixture(scope="module")
def whole(world: PlantedWorld, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    sweep(world.model, world.sae, SPEC, folder, batch_size=8)
    return parts(folder)


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world()


@pytest.mark.parametrize("seed", range(2))
def test_a_sweep_killed_again_and_again_loses_nothing(whole: dict[str, bytes], tmp_path: Path, seed: int) -> None:
    """SIGKILL at random moments, until a process comes to the end before it is killed."""
    folder = tmp_path / "run"
    assert in_another_process(folder, str(seed)) >= 3
    assert parts(folder) == whole
    assert [one["row"] for one in open_run(folder).texts()] == list(range(ROWS))


def test_a_part_that_is_being_put_in_place_when_the_process_dies_is_written_again(
    world: PlantedWorld, whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert in_another_process(tmp_path, "dies while it puts the third part in place") == -signal.SIGKILL
    assert list(parts(tmp_path)) == ["rows-00000.parquet", "rows-00001.parquet"]
    sweep(world.model, world.sae, SPEC, tmp_path)
    assert parts(tmp_path) == whole


def test_each_part_gives_its_memory_back(
    tiny: Model, sae: SAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every part, and when its cache is gone: else a long sweep's memory grows in steps."""
    caches: list[list[RowCache]] = []
    others = [one for one in gc.get_objects() if type(one) is RowCache]  # of tests that ran before; kept till the end

    def left() -> None:
        found = [one for one in gc.get_objects() if type(one) is RowCache]
        caches.append([one for one in found if not any(one is other for other in others)])

    monkeypatch.setattr("trimtab.lm.memory.give_back", left)
    sweep(tiny, sae, SPEC, tmp_path / "run", batch_size=8)
    assert caches == [[]] * len(parts(tmp_path / "run"))
    assert len(caches) > 1


def test_a_complete_sweep_is_left_alone(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    sweep(tiny, sae, SPEC, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*")}
    seen: list[Progress] = []
    sweep(tiny, sae, SPEC, tmp_path, progress=seen.append)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*")} == times
    assert seen == []
    assert estimate(tiny, sae, SPEC, tmp_path).rows == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"strengths": (2.0, -1.5)}, r"spec\.strengths: \[2\.0, -1\.0\] there, \[2\.0, -1\.5\] now"),
        ({"seeds": (0,)}, r"spec\.seeds: \[0, 4\] there, \[0\] now"),
        ({"sampling": Sampling(max_new_tokens=8)}, r"spec\.sampling\.max_new_tokens: 7 there, 8 now"),
    ],
)
def test_another_spec_is_refused_with_the_difference(
    tiny: Model, sae: SAE, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    sweep(tiny, sae, SPEC, tmp_path, batch_size=32)
    before = parts(tmp_path), (tmp_path / "run.json").read_bytes()
    for go in (sweep, estimate):
        with pytest.raises(MismatchError, match=said):
            go(tiny, sae, SPEC.model_copy(update=change), tmp_path)
    assert (parts(tmp_path), (tmp_path / "run.json").read_bytes()) == before


def test_another_sae_or_batch_size_is_refused(tiny: Model, sae: SAE, make_sae: Any, tmp_path: Path) -> None:
    sweep(tiny, sae, SPEC, tmp_path, batch_size=32)
    with pytest.raises(MismatchError, match=r"sae\.fingerprint"):
        sweep(tiny, make_sae("jumprelu", seed=1), SPEC, tmp_path)
    with pytest.raises(MismatchError, match="batch_size: 32 there, 16 now"):
        sweep(tiny, sae, SPEC, tmp_path, batch_size=16)


def test_a_damaged_part_is_written_again_and_a_foreign_folder_is_refused(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    sweep(tiny, sae, SPEC, tmp_path / "run", batch_size=8)
    part = tmp_path / "run" / "rows-00001.parquet"
    whole = part.read_bytes()
    for damage, how in (
        (whole[:100], r"rows-00001\.parquet is damaged \(100 bytes, not \d+\)"),
        (whole[:-1] + b"x", r"rows-00001\.parquet is damaged \(its checksum is another\)"),
        (None, r"rows-00001\.parquet is missing"),
    ):
        part.write_bytes(damage) if damage else part.unlink()
        said: list[str] = []
        assert estimate(tiny, sae, SPEC, tmp_path / "run").rows == 16
        sweep(tiny, sae, SPEC, tmp_path / "run", say=said.append)
        assert part.read_bytes() == whole
        assert len(said) == 1
        assert re.match(how + ".* written again", said[0])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="not a sweep's folder"):
        sweep(tiny, sae, SPEC, tmp_path / "other")
    with pytest.raises(FileError, match="holds no sweep"):
        open_run(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": (1, 1)}, "features has the same value twice"),
        ({"ops": ("vector",)}, "ops are among"),
        ({"prompts": ()}, "prompts"),
        ({"strengths": (float("nan"),)}, "strengths"),
    ],
)
def test_grids_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SweepSpec.parse({**SPEC.model_dump(), **change})


def test_nothing_is_written_when_an_edit_is_impossible(tiny: Model, sae: SAE, make_sae: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="40"):
        sweep(tiny, sae, SPEC.model_copy(update={"features": (3, 40)}), tmp_path / "run")
    with pytest.raises(InputError, match="maximum activations"):
        sweep(tiny, make_sae("jumprelu", max_act=False), SPEC, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_estimate_counts_what_is_left_and_writes_nothing(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    cost = estimate(tiny, sae, SPEC, tmp_path / "run", batch_size=8)
    assert (cost.rows, cost.tokens) == (ROWS, ROWS * 7)
    assert cost.rate > 0
    assert cost.seconds == pytest.approx(cost.tokens / cost.rate)
    assert not (tmp_path / "run").exists()
    sweep(tiny, sae, SPEC, tmp_path / "run", batch_size=8)
    (tmp_path / "run" / "rows-00002.parquet").unlink()
    assert estimate(tiny, sae, SPEC, tmp_path / "run").rows == 16


def test_the_summary_is_what_the_unsteered_model_reads(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    run = sweep(tiny, sae, SPEC, tmp_path, batch_size=8)
    summary = summarise(tiny, sae, run)
    texts = list(run.texts())

    def by_hand(op: str | None, feature: int, strength: float | None) -> tuple[float, float]:
        means, likely = [], []
        for one in texts:
            if (one["op"], one["strength"]) == (op, strength) and one["feature"] in (feature, None):
                ids, start = torch.tensor([one["token_ids"]]), one["generated_from"]
                f = sae.encode(read(tiny, ids, [sae.site])[sae.site])[0, start:, feature]
                said = tiny.hf(ids).logits[0].log_softmax(-1)[start - 1 : -1].gather(1, ids[0, start:, None])
                means.append(f.mean().item())
                likely.append(said.mean().item())
        assert len(means) == 4
        return sum(means) / 4, sum(likely) / 4

    assert len(summary.cells) == 3 * (2 + 2 + 1)
    for cell in summary.cells:
        response, likely = by_hand(cell.op, cell.feature, cell.strength)
        assert cell.response.mean == pytest.approx(response, abs=1e-4)
        assert cell.log_likelihood.mean == pytest.approx(likely, abs=1e-4)
        plain, plain_likely = by_hand(None, cell.feature, None)
        assert cell.unsteered.mean == pytest.approx(plain, abs=1e-4)
        assert summary.unsteered_log_likelihood.mean == pytest.approx(plain_likely, abs=1e-4)
    assert json.loads((tmp_path / "summary.json").read_text())["cells"][0]["feature"] == 3
    svg = (tmp_path / "summary.svg").read_bytes()
    assert svg.startswith(b"<?xml")
    assert all(word in svg for word in (b"add", b"clamp", b"ablate", b"log-likelihood"))


def test_an_add_curve_passes_through_the_unsteered_texts(
    tiny: Model, sae: SAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("trimtab.evidence.sweep.svg", lambda columns, _legend: drawn.extend(columns) or b"")
    summary = summarise(tiny, sae, sweep(tiny, sae, SPEC, tmp_path, batch_size=32))
    add, clamp, ablate = ([panel.curves[1] for panel in column] for column in drawn)
    cells = {cell.strength: cell for cell in summary.cells if (cell.op, cell.feature) == ("add", 17)}
    assert add[0].label == "17"
    assert add[0].x == (-1.0, 0.0, 2.0)
    assert add[0].y == (cells[-1.0].response.mean, cells[2.0].unsteered.mean, cells[2.0].response.mean)
    assert add[1].y[1] == summary.unsteered_log_likelihood.mean
    assert [one.x for one in (clamp[0], ablate[0])] == [(-1.0, 2.0), (0.0,)]


def test_measures_that_are_there_are_not_made_again(tiny: Model, sae: SAE, tmp_path: Path) -> None:
    run = sweep(tiny, sae, SPEC, tmp_path, batch_size=8)
    first = summarise(tiny, sae, run)
    names = ("summary.json", "summary.svg", "measures-00001.parquet")
    files = {name: (tmp_path / name).read_bytes() for name in names}
    for name in names:
        (tmp_path / name).unlink()
    kept = tmp_path / "measures-00000.parquet"
    time = kept.stat().st_mtime_ns
    assert summarise(tiny, sae, run) == first
    assert {name: (tmp_path / name).read_bytes() for name in names} == files
    assert kept.stat().st_mtime_ns == time
    assert pq.read_metadata(kept).num_rows == 16
