"""Units: done once, in order, found damaged by their checksums, stopped early, and refused when they are others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimtab.cli.app import app
from trimtab.errors import FileError, InputError, MismatchError, StorageError
from trimtab.scale.folder import RunFolder
from trimtab.scale.run import Done, On, run_units
from trimtab.scale.store import open_store
from trimtab.scale.unit import Do, Part, Tell, Unit

from .conftest import Server, content


class Squares:
    """Work that writes squares, and remembers what it did."""

    def __init__(self) -> None:
        self.opened = 0
        self.did: list[str] = []

    @contextmanager
    def open(self) -> Iterator[Do]:
        self.opened += 1
        yield self.do

    def do(self, unit: Unit, tell: Tell) -> Part:
        if unit.work is None:
            raise InputError("nothing to square")
        self.did.append(unit.id)
        tell(unit.work)
        return Part({f"{unit.id}.txt": str(unit.work**2).encode()}, {"square": unit.work**2})


UNITS = [Unit(f"n-{i}", i) for i in range(5)]


def run(work: Squares, folder: Path, units: list[Unit] = UNITS, said: list[str] | None = None) -> list[Done]:
    there = RunFolder(open_store(folder), "squares")
    there.begin({"spec": {"n": 5, "seed": 1}, "model_name": "a"})
    say = (lambda _: None) if said is None else said.append
    return list(run_units(work.open, units, there, say=say))


def test_units_are_done_once_and_named_in_order(tmp_path: Path) -> None:
    work = Squares()
    done = run(work, tmp_path)
    assert [one.unit.id for one in done] == [one.id for one in UNITS]
    assert [one.entry.facts["square"] for one in done] == [0, 1, 4, 9, 16]
    before = content(tmp_path)
    assert [(one.fresh, one.entry.facts["square"]) for one in run(work, tmp_path)] == [
        (False, 0), (False, 1), (False, 4), (False, 9), (False, 16),
    ]  # fmt: skip
    assert (work.opened, len(work.did)) == (1, 5)
    assert content(tmp_path) == before


@pytest.mark.parametrize("damage", ["torn", "altered", "gone", "entry"])
def test_damage_is_found_said_and_repaired(tmp_path: Path, damage: str) -> None:
    run(Squares(), tmp_path)
    whole = content(tmp_path)
    part, entry = tmp_path / "n-3.txt", tmp_path / "ledger" / "n-3.json"
    {
        "torn": lambda: part.write_bytes(b""),
        "altered": lambda: part.write_bytes(b"8"),
        "gone": part.unlink,
        "entry": lambda: entry.write_text('{"unit": "n-3"'),
    }[damage]()
    work, said = Squares(), list[str]()
    run(work, tmp_path, said=said)
    assert work.did == ["n-3"]
    assert content(tmp_path) == whole
    assert len(said) == (damage != "entry")
    assert all("n-3.txt is" in one and "written again" in one for one in said)


def test_another_run_and_a_foreign_folder_are_refused(tmp_path: Path) -> None:
    run(Squares(), tmp_path / "run")
    there = RunFolder(open_store(tmp_path / "run"), "squares")
    with pytest.raises(MismatchError, match=r"another squares \(spec\.seed: 1 there, 2 now\)"):
        there.begin({"spec": {"n": 5, "seed": 2}, "model_name": "a"})
    assert there.begin({"spec": {"n": 5, "seed": 1}, "model_name": "b"}) == []
    with pytest.raises(FileError, match="holds a squares"):
        RunFolder(there.store, "cubes").begin({})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(FileError, match="not a squares's folder"):
        RunFolder(open_store(tmp_path / "mine"), "squares").begin({})


def test_another_version_is_said_and_goes_on(tmp_path: Path) -> None:
    run(Squares(), tmp_path)
    manifest = json.loads((tmp_path / "run.json").read_text())
    manifest["versions"]["torch"] = "1.0"
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    notes = RunFolder(open_store(tmp_path), "squares").begin({"spec": {"n": 5, "seed": 1}, "model_name": "a"})
    assert len(notes) == 1
    assert "torch 1.0" in notes[0]


def test_stopping_early_and_failing_keep_what_is_done(tmp_path: Path) -> None:
    work = Squares()
    folder = RunFolder(open_store(tmp_path), "squares")
    doing = run_units(work.open, UNITS, folder)
    next(doing), next(doing)
    doing.close()
    assert work.did == ["n-0", "n-1"]
    with pytest.raises(InputError, match="nothing to square"):
        list(run_units(work.open, [*UNITS[:3], Unit("n-9")], folder))
    assert work.did == ["n-0", "n-1", "n-2"]
    said = [json.loads(line)["what"] for path in (tmp_path / "log").iterdir() for line in path.read_text().splitlines()]
    assert {"enough", "stopped"} <= set(said)


def test_a_server_that_stays_away_ends_the_run_which_goes_on_when_it_is_back(
    tmp_path: Path, own_server: Server
) -> None:
    whole, there, work = tmp_path / "whole", RunFolder(open_store("s3://runs/one"), "squares"), Squares()
    run(Squares(), whole)
    there.begin({"spec": {"n": 5, "seed": 1}, "model_name": "a"})
    doing = run_units(work.open, UNITS, there)
    assert [next(doing).unit.id for _ in range(2)] == ["n-0", "n-1"]
    own_server.kill()
    with pytest.raises(StorageError, match=r"s3://runs/one/n-2.txt cannot be .*the same command goes on\.$"):
        next(doing)
    assert work.did == ["n-0", "n-1", "n-2"]
    result = CliRunner().invoke(app, ["runs", "verify", "s3://runs/one"])
    assert (result.exit_code, len(result.stderr.splitlines()), result.stdout) == (2, 1, "")
    assert result.stderr.startswith("Error: s3://runs/one/run.json cannot be read: ")
    kept = content(own_server.root / "runs" / "one")
    assert set(kept) == {"run.json", "n-0.txt", "n-1.txt", "ledger/n-0.json", "ledger/n-1.json"}
    assert kept.items() <= content(whole).items()
    own_server.start()
    again = Squares()
    assert len(list(run_units(again.open, UNITS, there))) == 5
    assert again.did == ["n-2", "n-3", "n-4"]
    assert content(own_server.root / "runs" / "one") == content(whole)


@pytest.mark.parametrize(
    ("on", "said"), [(("local", 2), "need Ray"), (("elsewhere", 1), "'elsewhere'"), (("ray", 0), "at least 1 worker")]
)
def test_places_that_cannot_be(on: tuple[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        On(*on)
