from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import torch

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.lm.load import Model
from trimtab.lm.residual import read
from trimtab.lm.texts import Context, batches, iter_contexts, iter_texts, total_bytes
from trimtab.sae import activations
from trimtab.sae.activations import Harvest, harvest, open_harvest, stream
from trimtab.spec import Site

SITES = [Site(layer=0), Site(layer=1)]
TEXTS = [f"Text number {i} walks {'very ' * (i % 7)}slowly along the {i * 31 % 17}th road." for i in range(40)]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text, "source": "made"}) + "\n" for text in TEXTS))
    return str(path)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "CONTEXTS_PER_SHARD", 16)


def run(tiny: Model, corpus: str, folder: Path, tokens: int = 3000, **options: object) -> Harvest:
    return harvest(tiny, [corpus], SITES, folder, tokens=tokens, context=32, autocast=False, **options)  # type: ignore[arg-type]


def test_shards_hold_what_the_model_says_without_bos(tiny: Model, corpus: str, tmp_path: Path) -> None:
    found = run(tiny, corpus, tmp_path / "acts", tokens=10**9)
    naive = []
    for text in TEXTS:
        ids = tiny.tokenizer(text, add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), 31):
            if len(ids[start : start + 31]) >= 16:
                one = torch.tensor([[tiny.bos_id, *ids[start : start + 31]]])
                naive.append(read(tiny, one, [SITES[1]])[SITES[1]][0, 1:])
    every = torch.cat(naive)
    norms = every.norm(dim=-1)
    every = every[norms <= found.manifest["norm_limit"][str(SITES[1])]]
    stored = found.load(found.shards(), SITES[1]).float()
    assert found.tokens == len(every) == len(stored)
    apart = torch.cdist(stored, every)
    rounding = 2**-8 * every.norm(dim=-1).max()  # bfloat16 keeps eight bits
    assert float(apart.min(0).values.max()) < rounding
    assert float(apart.min(1).values.max()) < rounding


def test_attention_sinks_are_left_out(
    tiny: Model, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_sinks(
        model: Model, ids: torch.Tensor, sites: list[Site], attention_mask: torch.Tensor
    ) -> dict[Site, torch.Tensor]:
        h = {site: read(model, ids, [site], attention_mask)[site].clone() for site in sites}
        for site in sites:
            h[site][0, 3] *= 1000
        return h

    plain = run(tiny, corpus, tmp_path / "plain", tokens=10**9)
    monkeypatch.setattr("trimtab.lm.residual.read", with_sinks)
    monkeypatch.setattr("trimtab.sae.shards.SINK_FACTOR", 1e-2)
    found = run(tiny, corpus, tmp_path / "sinks", tokens=500)
    limit = found.manifest["norm_limit"][str(SITES[0])]
    assert float(found.load(found.shards(), SITES[0]).float().norm(dim=-1).max()) <= limit * 1.01
    assert found.tokens < plain.tokens


def test_a_killed_harvest_resumes_to_the_same_files(tiny: Model, corpus: str, tmp_path: Path) -> None:
    def die(_: object) -> None:
        raise KeyboardInterrupt

    whole = run(tiny, corpus, tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tiny, corpus, tmp_path / "killed", progress=die)
    again = run(tiny, corpus, tmp_path / "killed")
    assert [path.name for path in again.shards()] == [path.name for path in whole.shards()]
    assert len(whole.shards()) > 2
    for ours, theirs in zip(again.shards(), whole.shards(), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_damaged_shard_is_said_and_made_again(tiny: Model, corpus: str, tmp_path: Path) -> None:
    whole = run(tiny, corpus, tmp_path / "acts")
    shard = whole.shards()[1]
    content, manifest = shard.read_bytes(), whole.manifest
    said: list[str] = []
    for damage in (content[:-1], content[:-1] + b"x"):
        shard.write_bytes(damage)
        again = run(tiny, corpus, tmp_path / "acts", tokens=1, say=said.append)
        assert shard.read_bytes() == content
        assert again.manifest["shards"] == manifest["shards"]
    assert [one.count("shard-00001.safetensors is damaged") for one in said] == [1, 1]


def test_another_harvest_in_the_folder_is_refused(tiny: Model, corpus: str, tmp_path: Path) -> None:
    run(tiny, corpus, tmp_path / "acts", tokens=100)
    with pytest.raises(MismatchError, match="seed: 0 there, 1 now"):
        run(tiny, corpus, tmp_path / "acts", tokens=100, seed=1)
    with pytest.raises(FileError, match="No such file"):
        open_harvest(tmp_path / "nothing")


def test_stream_shows_every_token_once_a_pass_and_skips_exactly(tiny: Model, corpus: str, tmp_path: Path) -> None:
    source = run(tiny, corpus, tmp_path / "acts")
    total = source.tokens
    batch = 64
    one_pass = list(islice(stream(source, SITES[0], batch=batch, seed=5, mix=2), total // batch))
    seen = torch.cat(one_pass)
    stored = source.load(source.shards(), SITES[0]).float()
    counts = {tuple(row): 0 for row in stored.tolist()}
    for row in seen.tolist():
        counts[tuple(row)] += 1
    repeats = len(stored) - len(counts)  # bfloat16 rows that happen to be equal
    assert sum(count == 0 for count in counts.values()) <= total % batch
    assert max(counts.values()) <= 1 + repeats
    assert not torch.equal(seen[:batch], stored[:batch])
    later = list(islice(stream(source, SITES[0], batch=batch, seed=5, mix=2, skip=3), len(one_pass) - 3))
    assert all(torch.equal(a, b) for a, b in zip(one_pass[3:], later, strict=True))
    with pytest.raises(InputError, match="fewer than one batch"):
        next(stream(source, SITES[0], batch=total + 1, seed=0))


def test_texts_are_distinct_and_read_from_every_kind_of_file(tmp_path: Path) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.txt").write_text("One paragraph\nof two lines.\n\n\nAnother.\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"text": "Another."}\n{"text": "Third.", "source": "named"}\n')
    pq.write_table(pa.table({"text": ["Fourth.", "Third."]}), tmp_path / "c.parquet")
    found = list(iter_texts([str(tmp_path / name) for name in ("a.txt", "b.jsonl.gz", "c.parquet")]))
    assert [(t.text, t.source, t.document) for t in found] == [
        ("One paragraph\nof two lines.", "a.txt", 0),
        ("Another.", "a.txt", 1),
        ("Third.", "named", 2),
        ("Fourth.", "c.parquet", 3),
    ]


@pytest.mark.parametrize("name", ["a.txt", "b.jsonl", "c.jsonl.gz", "d.parquet"])
def test_texts_say_how_much_was_read(tmp_path: Path, name: str) -> None:
    """So that a long job can say how much is left; a gzipped file is read 128 kB at a time."""
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = torch.Generator().manual_seed(0)
    texts = ["".join(chr(97 + i) for i in torch.randint(26, (300,), generator=draw).tolist()) for _ in range(4000)]
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": texts}), path)
    else:
        lines = "".join(f'{{"text": "{t}"}}\n' if "jsonl" in name else f"{t}\n\n" for t in texts).encode()
        path.write_bytes(gzip.compress(lines) if name.endswith("gz") else lines)
    first = tmp_path / "first.txt"
    first.write_text("first")
    sources = [str(first), str(path)]
    total = total_bytes(sources)
    assert total == path.stat().st_size + 5
    read = [text.read for text in iter_texts(sources)]
    for i in (1000, 2000, 3000, 4000):
        assert abs(read[i] - i / 4000 * total) <= 150_000
        assert i == 4000 or read[i] < total
    assert read[-1] == total
    assert total_bytes([*sources, "a dataset"]) is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"text": "a"}\n{oops\n', "line 2 is not JSON"),
        ("x.jsonl", b'{"body": "a"}\n', "no text field 'text'; it has: 'body'"),
        ("x.txt.gz", b"not gzip", "damaged"),
        ("x.txt", b"\xff\xfe\xfa", "damaged"),
        ("x.parquet", b"nope", "not a Parquet file"),
        ("x.csv", b"a,b", "not a text file that trimtab reads"),
    ],
)
def test_bad_text_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((FileError, InputError), match=message):
        list(iter_texts([str(tmp_path / name)]))


def test_contexts_cover_a_text_and_drop_short_ends() -> None:
    from trimtab.lm.texts import Text

    def encode(texts: list[str]) -> list[list[int]]:
        return [[ord(c) for c in text] for text in texts]

    found = list(iter_contexts([Text("abcdefgh", "s", 0)], encode, bos=1, length=4, shortest=3))
    assert [c.ids for c in found] == [(1, 97, 98, 99), (1, 100, 101, 102)]
    with pytest.raises(InputError, match="no room"):
        list(iter_contexts([Text("a", "s", 0)], encode, bos=1, length=1))


def test_batches_hold_every_context_once_within_the_limit() -> None:
    contexts = [Context(tuple(range(1, 2 + i % 9)), "s", i) for i in range(50)]
    seen = []
    for indices, ids, mask in batches(contexts, tokens=40):
        assert ids.shape == mask.shape
        assert ids.numel() <= 40
        for row, index in enumerate(indices):
            assert tuple(ids[row][mask[row].bool()].tolist()) == contexts[index].ids
        seen += indices
    assert sorted(seen) == list(range(50))
