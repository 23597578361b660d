"""A corpus: its texts are those of `generate`, a killed run ends with the same bytes, and another one is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.lm.decode import Progress
from trimtab.lm.model import Model
from trimtab.lm.texts import iter_texts
from trimtab.spec import Sampling
from trimtab.steer.corpus import NO_OPENER, CorpusSpec, draw, estimate
from trimtab.steer.generate import generate
from trimtab.steer.run_folder import read_rows

SPEC = CorpusSpec(prompts=("ab", "", "Some"), texts=20, seed=3, sampling=Sampling(max_new_tokens=6, temperature=0.9))


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("rows-*.parquet"))}


def test_texts_are_those_of_generate_and_say_where_they_come_from(tiny: Model, tmp_path: Path) -> None:
    draw(tiny, SPEC, tmp_path / "run", batch_size=4)
    rows = list(read_rows(tmp_path / "run"))
    assert [row["row"] for row in rows] == list(range(20))
    for prompt in ("ab", "Some"):
        mine = [row for row in rows if row["prompt"] == prompt]
        expected = generate(tiny, prompt, samples=len(mine), max_new_tokens=6, temperature=0.9, seed=3)
        assert [tuple(row["token_ids"]) for row in mine] == [one.token_ids for one in expected]
        assert [row["text"] for row in mine] == [prompt + one.text for one in expected]
        assert [row["sample"] for row in mine] == [one.sample for one in expected]
    bare = [row for row in rows if row["prompt"] == ""]
    assert len(bare) == 7
    assert {(row["token_ids"][0], row["generated_from"]) for row in bare} == {(tiny.bos_id, 1)}
    assert all(row["text"] == tiny.decode(row["token_ids"]) for row in bare)
    assert len({row["text"] for row in rows}) == 20
    assert {(row["model"], row["seed"]) for row in rows} == {(tiny.fingerprint, 3)}
    read = list(iter_texts([str(path) for path in sorted((tmp_path / "run").glob("*.parquet"))]))
    assert [(one.text, one.source) for one in read] == [(row["text"], row["prompt"] or NO_OPENER) for row in rows]


class Killed(Exception):
    """What ends a run in the middle."""


@pytest.mark.parametrize("after", [1, 11, 17])
def test_a_killed_run_goes_on_to_the_same_bytes(tiny: Model, tmp_path: Path, after: int) -> None:
    draw(tiny, SPEC, tmp_path / "whole", batch_size=4)
    steps = 0

    def kill(_now: Progress) -> None:
        nonlocal steps
        steps += 1
        if steps == after:
            raise Killed

    with pytest.raises(Killed):
        draw(tiny, SPEC, tmp_path / "run", batch_size=4, progress=kill)
    assert parts(tmp_path / "run").keys() < parts(tmp_path / "whole").keys()
    left = estimate(tiny, SPEC, tmp_path / "run").rows
    assert left == 20 - sum(1 for _ in read_rows(tmp_path / "run"))
    seen: list[Progress] = []
    draw(tiny, SPEC, tmp_path / "run", progress=seen.append)
    assert parts(tmp_path / "run") == parts(tmp_path / "whole")
    assert (seen[-1].done, seen[-1].left) == (20, 0)
    assert seen[0].left <= 6 * left


def test_another_corpus_or_a_sweep_in_the_folder_is_refused(tiny: Model, tmp_path: Path) -> None:
    draw(tiny, SPEC, tmp_path / "run", batch_size=32)
    with pytest.raises(MismatchError, match=r"another corpus \(spec\.seed: 3 there, 4 now\)"):
        draw(tiny, SPEC.model_copy(update={"seed": 4}), tmp_path / "run")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    with pytest.raises(FileError, match="not a corpus's folder"):
        draw(tiny, SPEC, tmp_path / "sweep")


def test_what_cannot_be_drawn(tiny: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no BOS token"):
        draw(replace(tiny, bos_id=None), SPEC, tmp_path / "run")
    with pytest.raises(InputError, match="too long"):
        draw(tiny, SPEC.model_copy(update={"sampling": Sampling(max_new_tokens=10**6)}), tmp_path / "run")
    with pytest.raises(InputError, match="an opener is given twice: 'a'"):
        CorpusSpec.parse({"prompts": ["a", "b", "a"], "texts": 1})
    assert not (tmp_path / "run").exists()


def test_every_part_says_which_model_wrote_it(tiny: Model, tmp_path: Path) -> None:
    draw(tiny, SPEC, tmp_path, batch_size=4)
    assert len(list(tmp_path.glob("rows-*.parquet"))) == 3
    for path in tmp_path.glob("rows-*.parquet"):
        assert set(pq.read_table(path)["model"].to_pylist()) == {tiny.fingerprint}
