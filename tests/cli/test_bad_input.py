"""Bad input of every kind: exit code 2, one sentence that names what is wrong, nothing on stdout, no file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# What is typed after `trimtab steer` or `trimtab verify`, and what the sentence must say.
CASES = {
    "nothing to do": (["Once"], "give --feature, --vector or --recipe"),
    "no number": (["Once", "-f", "7:much"], "'7:much'"),
    "some strengths": (["Once", "-f", "7", "-f", "8:1"], "Give all or none; or with --dose"),
    "no such dose": (["Once", "-f", "7", "--dose", "loud"], "kl=NUMBER, ppl=NUMBER or auto"),
    "dose out of range": (["Once", "-f", "7", "--dose", "ppl=0.9"], "above 1"),
    "dose for ablate": (["Once", "-f", "7", "--op", "ablate", "--dose", "auto"], "no --dose to choose"),
    "no strength at all": (["Once", "-f", "7:0", "--dose", "kl=0.5"], "strengths of this recipe are all 0"),
    "strength for ablate": (["Once", "-f", "7:1", "--op", "ablate"], "INDEX alone"),
    "NaN strength": (["Once", "-f", "7:nan"], "finite number, not nan"),
    "infinite strength": (["Once", "-f", "7:-inf"], "finite number, not -inf"),
    "feature out of range": (["Once", "-f", "24:1"], "out of range"),
    "negative feature": (["Once", "-f", "-1:1"], "out of range"),
    "feature twice": (["Once", "-f", "7:1", "-f", "7:2"], "given twice"),
    "empty prompt": (["", "-f", "7:1"], "prompt is empty"),
    "long prompt": (["long " * 40, "-f", "7:1"], "too long"),
    "unit that cannot be": (["Once", "-f", "7:1", "--op", "clamp", "--unit", "norm"], "'norm'"),
    "unit for scale": (["Once", "-f", "7:1", "--op", "scale", "--unit", "raw"], "takes no --unit"),
    "top-p out of range": (["Once", "-f", "7:1", "--top-p", "1.5"], "top_p"),
    "negative temperature": (["Once", "-f", "7:1", "--temperature", "-1"], "temperature"),
    "no tokens": (["Once", "-f", "7:1", "--max-new-tokens", "0"], "max_new_tokens"),
    "missing recipe": (["Once", "--recipe", "none.recipe.safetensors"], "No such file: none.recipe.safetensors"),
    "missing vector": (["Once", "--vector", "none.npy", "--site", "1"], "No such file: none.npy"),
    "vector without site": (["Once", "--vector", "good.npy"], "--vector needs --site"),
    "site without vector": (["Once", "-f", "7:1", "--site", "1"], "belong to --vector"),
    "unknown layer": (["Once", "--vector", "good.npy", "--site", "9"], "block indices are 0 to 2"),
    "unknown site": (["Once", "--vector", "good.npy", "--site", "attention"], "Unknown site 'attention'"),
    "wrong width": (["Once", "--vector", "narrow.npy", "--site", "1"], "width"),
    "pickled vector": (["Once", "--vector", "pickled.npy", "--site", "1"], "pickled.npy is not a readable vector"),
    "vector of another kind": (["Once", "--vector", "notes.txt", "--site", "1"], "notes.txt is not a vector file"),
    "recipe of another kind": (["Once", "--recipe", "notes.txt"], "notes.txt is not a recipe"),
    "unknown device": (["Once", "-f", "7:1", "--device", "toaster"], "toaster"),
    "recipe onto a folder": (["Once", "-f", "7:1", "--save", "folder"], "folder cannot be written"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the cases name."""
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", np.ones(16, dtype=np.float32))
    np.save("narrow.npy", np.ones(3, dtype=np.float32))
    np.save("pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    Path("notes.txt").write_text("not a vector")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    return tmp_path


def expect(result: Any, sentence: str) -> None:
    assert result.exit_code == 2, (result.exit_code, result.stderr)
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["steer", "verify"])
@pytest.mark.parametrize("case", CASES)
def test_one_sentence(case: str, command: str, run: Any, place: Path, model_folder: Path, sae_folder: Path) -> None:
    words, sentence = CASES[case]
    before = sorted(place.rglob("*"))
    if command == "verify" and "--vector" in words:
        words = [*words, "--read", "7:1"]
    short = [] if "--max-new-tokens" in words else ["--max-new-tokens", "4"]
    expect(run(command, *words, *short, "--model", model_folder, "--sae", sae_folder), sentence)
    assert sorted(place.rglob("*")) == before


def test_verify_needs_something_to_read(run: Any, place: Path, model_folder: Path, sae_folder: Path) -> None:
    words = ["verify", "Once", "--vector", "good.npy", "--site", "1", "--model", model_folder, "--sae", sae_folder]
    expect(run(*words), "--read")


def test_sae_of_another_model(run: Any, model_folder: Path, foreign_sae: Path) -> None:
    expect(run("steer", "Once", "-f", "7:1", "--model", model_folder, "--sae", foreign_sae), "'some-other-model'")


def test_features_without_an_sae(run: Any, model_folder: Path) -> None:
    expect(run("steer", "Once", "-f", "7:1", "--model", model_folder), "name one with --sae")


@pytest.mark.parametrize(("which", "file"), [("sae", "sae_weights.safetensors"), ("model", "model.safetensors")])
def test_truncated_safetensors(
    which: str, file: str, run: Any, model_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    folders = {"model": model_folder, "sae": sae_folder}
    broken = tmp_path / folders[which].name
    shutil.copytree(folders[which], broken)
    whole = (broken / file).read_bytes()
    (broken / file).write_bytes(whole[: len(whole) // 2])
    folders[which] = broken
    expect(run("steer", "Once", "-f", "7:1", "--model", folders["model"], "--sae", folders["sae"]), str(broken))


@pytest.mark.parametrize("which", ["--model", "--sae"])
def test_missing_folder(which: str, run: Any, model_folder: Path, sae_folder: Path) -> None:
    folders = {"--model": model_folder, "--sae": sae_folder, which: "./not/there"}
    words = [word for pair in folders.items() for word in pair]
    expect(run("steer", "Once", "-f", "7:1", *words), "not/there")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none.jsonl", "--layer", "1", "--width", "32"], "none.jsonl"),
        (["texts.txt", "--layer", "9", "--width", "32"], "0 to 2"),
        (["texts.txt", "--layer", "1", "--width", "1"], "width"),
        (["texts.txt", "--layer", "1", "--width", "32", "--lr", "nan"], "lr"),
        (["texts.txt", "--layer", "1", "--width", "32", "--resume"], "no run in out to resume"),
    ],
)
def test_train(
    words: list[str], sentence: str, run: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("A text.\n\nAnother text.\n")
    expect(run("train", *words, "--out", "out", "--model", model_folder), sentence)
