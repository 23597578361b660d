"""Contrast sets: what is refused, how they are split, and where they are read from."""

from __future__ import annotations

import csv
import gzip
import json
from itertools import pairwise
from pathlib import Path

import pytest

from trimtab.errors import FileError, InputError
from trimtab.find.overlap import near_duplicates
from trimtab.find.pairs import ContrastSet, audit, leaks
from trimtab.find.sources import read, shipped, shipped_names

POSITIVE = [
    f"The {a} sailed out past the {b}." for a in ("ship", "boat", "yacht") for b in ("reef", "buoy", "pier", "bar")
]
NEGATIVE = [
    f"A {a} was seen in the quiet {b}." for a in ("clerk", "judge", "tailor") for b in ("hall", "inn", "lane", "den")
]
ROWS = [{"positive": p, "negative": n} for p, n in zip(POSITIVE, NEGATIVE, strict=True)]


def test_digest_depends_on_the_texts_and_their_pairing_alone() -> None:
    one = ContrastSet.of(POSITIVE, NEGATIVE, name="a")
    assert one.digest == ContrastSet.of(POSITIVE, NEGATIVE, name="b").digest
    assert one.digest != one.swapped().digest
    assert one.digest != ContrastSet.of(POSITIVE, NEGATIVE, paired=False).digest


@pytest.mark.parametrize(
    ("positive", "negative", "words"),
    [
        (POSITIVE[:3], NEGATIVE[:3], "nearly empty"),
        ([f"{p} {i}" for i in range(10) for p in POSITIVE], NEGATIVE[:8], "one-sided"),
        (POSITIVE, [], "one-sided"),
        ([*POSITIVE[:-1], NEGATIVE[0].upper()], NEGATIVE, "both sides"),
        ([*POSITIVE[:-1], "  "], NEGATIVE, "positive text 12 is empty"),
    ],
)
def test_a_set_that_teaches_nothing_is_refused(positive: list[str], negative: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ContrastSet.of(positive, negative, paired=False)


def test_pairs_need_sides_of_one_length() -> None:
    with pytest.raises(InputError, match="12 positive and 11 negative"):
        ContrastSet("x", tuple(POSITIVE), tuple(NEGATIVE[:-1]), paired=True)


def test_a_split_keeps_pairs_whole_loses_none_and_repeats_with_its_seed() -> None:
    whole = shipped("sea")
    parts = whole.split(seed=3)
    together = {pair for part in parts for pair in zip(part.positive, part.negative, strict=True)}
    assert together == set(zip(whole.positive, whole.negative, strict=True))
    assert sum(len(part) for part in parts) == len(whole)
    assert [len(part) for part in parts] == [37, 13, 12]
    assert parts == whole.split(seed=3)
    assert parts != whole.split(seed=4)


def test_near_duplicates_never_stand_in_two_parts() -> None:
    twins = [text.replace(".", " again.") for text in shipped("food").positive[:30]]
    doubled = ContrastSet.of([*shipped("food").positive[:30], *twins], shipped("food").negative[:60], paired=False)
    assert len(audit(doubled).near) == 30
    for seed in range(5):
        train, dev, test = doubled.split(seed=seed)
        assert leaks(train, dev) == leaks(train, test) == leaks(dev, test) == []


def test_leaks_between_two_files_are_reported() -> None:
    sea, food = shipped("sea"), shipped("food")
    test = ContrastSet.of([*food.positive[:20], sea.positive[5].upper()], food.negative[:21])
    assert leaks(sea, test) == [(sea.positive[5], sea.positive[5].upper())]
    assert leaks(sea, food) == []


def test_near_duplicates_agree_with_a_plain_double_loop() -> None:
    texts = [*POSITIVE, *NEGATIVE, "the SHIP sailed out, past the reef", "one", "one"]
    grams = [{*pairwise(w)} or {tuple(w)} for w in (t.lower().replace(",", "").strip(".").split() for t in texts)]
    naive = [
        (i, j) for j in range(len(texts)) for i in range(j)
        if len(grams[i] & grams[j]) / len(grams[i] | grams[j]) >= 0.7
    ]  # fmt: skip
    assert near_duplicates(texts) == sorted(naive)


def test_take_is_a_seeded_subset_of_pairs() -> None:
    whole = shipped("war")
    some = whole.take(10, seed=1)
    assert len(some) == 10
    assert set(zip(some.positive, some.negative, strict=True)) < set(zip(whole.positive, whole.negative, strict=True))
    assert some == whole.take(10, seed=1) != whole.take(10, seed=2)
    with pytest.raises(InputError, match="1 to 62"):
        whole.take(63)


def test_every_file_format_gives_the_same_set(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    expected = ContrastSet.of(POSITIVE, NEGATIVE).digest
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in ROWS))
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["positive", "negative"])
        writer.writeheader()
        writer.writerows(ROWS)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.json", "b.jsonl.gz", "a.csv", "a.parquet"):
        assert read(tmp_path / name).digest == expected, name
    (tmp_path / "p.txt").write_text("\n".join(POSITIVE))
    (tmp_path / "n.txt").write_text("\n\n".join(NEGATIVE))
    assert read(tmp_path / "p.txt", tmp_path / "n.txt", paired=True).digest == expected
    assert not read(tmp_path / "p.txt", tmp_path / "n.txt").paired


def test_a_hugging_face_dataset_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read(tmp_path / "set").digest == ContrastSet.of(POSITIVE, NEGATIVE).digest


def test_saving_and_reading_gives_the_set_back(tmp_path: Path) -> None:
    for paired in (True, False):
        made = ContrastSet.of(POSITIVE, NEGATIVE, paired=paired)
        made.save(tmp_path / "set.jsonl")
        assert read(tmp_path / "set.jsonl").digest == made.digest


def test_written_evals_are_read_as_they_are(tmp_path: Path) -> None:
    rows = [
        {
            "question": f'Would you say this?\n"{text}"',
            "statement": text,
            "label_confidence": 0.9,
            "answer_matching_behavior": " Yes" if good else " No",
            "answer_not_matching_behavior": " No" if good else " Yes",
        }
        for good, side in ((True, POSITIVE), (False, NEGATIVE))
        for text in side
    ]
    (tmp_path / "kind.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    statements = read(tmp_path / "kind.jsonl")
    assert statements.positive == tuple(POSITIVE)
    assert statements.negative == tuple(NEGATIVE)
    assert not statements.paired
    answers = read(tmp_path / "kind.jsonl", view="answer")
    assert answers.paired
    assert len(answers) == 24
    assert answers.positive[0] == rows[0]["question"] + "\n\nAnswer: Yes"
    assert answers.negative[0] == rows[0]["question"] + "\n\nAnswer: No"
    assert answers.positive[-1].endswith("Answer: No")


@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("a.jsonl", '{"left": "x"}\n', InputError, "columns left"),
        ("a.jsonl", "not json\n", FileError, "line 1"),
        ("a.jsonl", '{"positive": 3, "negative": "x"}\n', InputError, "row 1: 'positive' must be a text"),
        ("a.csv", "text,label\nhello,maybe\n", InputError, "'maybe' is neither side"),
        ("a.doc", "x", InputError, "unknown kind"),
        ("a.jsonl", "", InputError, "no rows"),
    ],
)
def test_files_that_cannot_be_right_are_refused(
    tmp_path: Path, name: str, text: str, error: type[Exception], words: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=words):
        read(tmp_path / name)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "none.jsonl")


def test_an_unknown_concept_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match="sea"):
        shipped("volcano")
    assert read("sea").digest == shipped("sea").digest


def test_the_shipped_sets_are_large_clean_and_within_their_lengths() -> None:
    assert len(shipped_names()) >= 12
    seen: dict[str, str] = {}
    for name in shipped_names():
        found = shipped(name)
        found.check()
        assert found.paired
        assert len(found) >= 60, name
        assert audit(found).clean, name
        for text in (*found.positive, *found.negative):
            assert 5 <= len(text.split()) <= 25, (name, text)
            assert seen.setdefault(text, name) == name, f"{text!r} stands in {seen[text]} and {name}"


def test_length_alone_does_not_tell_the_shipped_sides_apart() -> None:
    """A probe that counts words must not do well, or it would be what a probe on activations finds."""
    import numpy as np

    from trimtab.find.stats import separation

    for name in shipped_names():
        found = shipped(name)
        lengths = [np.array([[len(text.split())] for text in side]) for side in (found.positive, found.negative)]
        assert abs(separation(*lengths).auc[0] - 0.5) < 0.3, name
