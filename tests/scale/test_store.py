"""A store is the same wherever it is, and never shows a half of a file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from trimtab.errors import FileError, StorageError, UnsupportedError
from trimtab.sae.train import TrainSpec, train
from trimtab.scale import store as module
from trimtab.scale.store import local_folder, open_store

from .conftest import Server


@pytest.mark.parametrize("place", ["local", "memory", "s3"])
def test_files_come_back_and_are_listed_in_order(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    address = {"local": str(tmp_path / "run"), "memory": f"memory://{tmp_path.name}"}
    at = f"{request.getfixturevalue('s3')}/store" if place == "s3" else address[place]
    store = open_store(at)
    assert (store.names(), store.folders(), store.exists("b.bin")) == ([], [], False)
    for name, value in (("b.bin", b"two"), ("a.bin", b"one"), ("ledger/x.json", b"{}"), (".hidden", b"")):
        store.write(name, value)
    store.write("b.bin", b"three")
    assert (store.read("b.bin"), store.read("a.bin")) == (b"three", b"one")
    assert (store.names(), store.names("b*"), store.names("ledger/*.json")) == (
        ["a.bin", "b.bin"], ["b.bin"], ["ledger/x.json"],
    )  # fmt: skip
    assert store.folders() == ["ledger"]
    for _ in range(2):
        store.remove("a.bin")
    assert store.names() == ["b.bin"]
    assert (store / "ledger").read_json("x.json") == {}
    with pytest.raises(FileError, match=r"No such file: .*none"):
        store.read("none")


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path)
    store.write("a.bin", b"old")

    def full(_self: Path, _content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.write("a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert store.read("a.bin") == b"old"


def test_what_is_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="nowhere:// is not a place"):
        open_store("nowhere://x")
    monkeypatch.setitem(__import__("sys").modules, "obstore.fsspec", None)
    module._filesystem.cache_clear()
    with pytest.raises(UnsupportedError, match=r"pip install 'trimtab\[scale\]'"):
        open_store("s3://bucket/run")
    module._filesystem.cache_clear()


def test_an_address_is_not_taken_for_the_name_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_folder("runs/x") == Path("runs/x")
    for address in ("s3://bucket/index", Path("s3://bucket/index")):
        with pytest.raises(UnsupportedError, match="need a local folder"):
            local_folder(address)
    monkeypatch.chdir(tmp_path)
    model: Any = None
    with pytest.raises(UnsupportedError, match="need a local folder"):
        train(model, [], TrainSpec(layer=0, width=8, tokens=100), "s3://bucket/sae")
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def cat_file(self, _path: str) -> Any:
            raise RuntimeError("connection refused\nlong story")

    monkeypatch.setattr(module, "_filesystem", lambda _protocol: Gone())
    with pytest.raises(StorageError, match=r"s3://b/run/x cannot be read: connection refused\. When .* goes on\.$"):
        open_store("s3://b/run").read("x")


def test_a_server_that_comes_back_is_waited_for(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    store = open_store("s3://runs/late")
    own_server.kill()
    later = threading.Timer(3, own_server.start)
    later.start()
    store.write("a.bin", b"one")
    later.join()
    assert store.read("a.bin") == b"one"
