"""An index on disk, opened lazily: what one feature needs is read when it is asked for.

    index.json            what was indexed and how; written last, so a folder without it is unfinished
    features/*.parquet    a row a feature: count, density, mean (over firing tokens), max, first_bin, histogram,
                          words_error, partners_error
    examples/*.parquet    feature, kind (top, random, band), low and high (of the band), rank, value, source, document,
                          context, position, at (the token of the example that fires so), tokens, values
    words/*.parquet       feature, token, count: the tokens it fires on; a true count is at most words_error larger
    partners/*.parquet    feature, other, count: among the strongest of the same token; as above, partners_error
    sources/*.parquet     feature, source, count
    tokens.parquet        token, text, seen: how often each token was read
    lens/*.parquet        written by `trimtab.index.lens`
    labels.parquet        written by `trimtab.index.labels`
    map.parquet           written by `trimtab.index.map`

Rows are in order of `feature`, 4,096 features to a file and 4,096 rows to a row group, so DuckDB reads one or two row
groups of a table for a feature. bin i of a histogram holds activations from 2^(-20 + i / 4) to 2^(-20 + (i + 1) / 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.errors import FileError, InputError, MismatchError
from trimtab.index.records import Example, Feature, Label, Lens, Word
from trimtab.index.remote import ABOUT, fetch, publish
from trimtab.scale.store import Store, open_store

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

FORMAT = 1
_FOLDERS = ("features", "examples", "words", "partners", "sources", "lens")
_FILES = ("tokens", "labels", "map")


@dataclass(frozen=True)
class Index:
    """An opened index. `query` sees tables under their names. `folder`: its files, or a copy of what is at `place`."""

    folder: Path
    about: dict[str, Any]
    place: Store

    def publish(self, pattern: str) -> None:
        """Have tables that were added to `folder` where the index is kept."""
        publish(self.folder, self.place, [pattern])

    @property
    def features(self) -> int:
        """Number of features of the SAE."""
        return int(self.about["features"])

    @property
    def tokens(self) -> int:
        """Number of tokens that the index was made of."""
        return int(self.about["tokens"])

    def describe(self) -> str:
        """One line on where the numbers come from."""
        a = self.about
        return f"{a['model']}, {a['site']}, SAE {a['sae']} of {a['features']:,} features, over {a['tokens']:,} tokens"

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        return duckdb.connect(":memory:")

    @cached_property
    def _views(self) -> set[str]:
        return set()

    def _add_views(self) -> None:
        """Name the tables that are there; some are written after the index was opened."""
        for name in (*_FOLDERS, *_FILES):
            if name not in self._views and self.has(name):
                files = _quoted(self.folder / name) + ("/*.parquet" if name in _FOLDERS else ".parquet")
                self._database.execute(f"create view {name} as from read_parquet('{files}')")
                self._views.add(name)

    def has(self, table: str) -> bool:
        """Whether the index has this table (`lens`, `labels` and `map` are added later)."""
        return (self.folder / (table if table in _FOLDERS else f"{table}.parquet")).exists()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a DuckDB query over the tables, in a stable order if the query has one."""
        self._add_views()
        found = self._database.execute(sql, list(values))
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def table(self, sql: str) -> pa.Table:
        """The result of a query as an Arrow table."""
        self._add_views()
        return self._database.sql(sql).to_arrow_table()

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each token id."""
        return [self._texts[i] for i in ids]

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {row["token"]: row["text"] for row in self.query("from tokens select token, text")}

    def check(self, index: int) -> int:
        """`index` if it is one of the features, else `InputError`."""
        if not 0 <= index < self.features:
            raise InputError(f"Feature {index} is out of range: this index has features 0 to {self.features - 1}.")
        return index

    def feature(self, index: int) -> Feature:
        """Everything about one feature; examples strongest first, then random ones, then bands from weak to strong."""
        return self.several([index])[0]

    def several(self, features: Sequence[int]) -> list[Feature]:
        """Everything about each of `features`, as `feature` has it, with as many queries as for one."""
        where, values = _among([self.check(index) for index in features])
        rows = {row["feature"]: row for row in self.query(f"from features {where}", values)}
        names = ("count", "density", "mean", "max", "words_error", "partners_error")
        partners = self._pairs("partners", "other", where, values)
        sources = self._pairs("sources", "source", where, values)
        words, examples = self.words(features), self.examples(features)
        lenses, labels = self.lenses(features), self.labels(features)
        return [
            Feature(
                index=index,
                **{name: rows[index][name] for name in names},
                histogram=tuple(
                    (2 ** (-20 + i / 4), 2 ** (-20 + (i + 1) / 4), n)
                    for i, n in enumerate(rows[index]["histogram"], rows[index]["first_bin"])
                ),
                words=words.get(index, ()),
                partners=tuple(partners.get(index, ())[:20]),
                sources=tuple(sources.get(index, ())),
                examples=tuple(examples[index]),
                lens=lenses.get(index),
                labels=labels.get(index, ()),
            )
            for index in features
        ]

    def _pairs(self, table: str, item: str, where: str, values: Sequence[int]) -> dict[int, list[tuple[Any, int]]]:
        """(item, count) of each feature, the largest count first."""
        found: dict[int, list[tuple[Any, int]]] = {}
        for row in self.query(f"from {table} {where} order by feature, count desc, {item}", values):
            found.setdefault(row["feature"], []).append((row[item], row["count"]))
        return found

    def words(self, features: Sequence[int] | None = None, most: int = 20) -> dict[int, tuple[Word, ...]]:
        """The tokens that each feature (None: all of them) fires on most."""
        where, values = _among(features)
        rows = self.query(
            f"select feature, token, text, count, seen from words join tokens using (token) {where} "
            "qualify row_number() over (partition by feature order by count desc, token) <= ? "
            "order by feature, count desc, token",
            [*values, most],
        )
        found: dict[int, list[Word]] = {}
        for row in rows:
            found.setdefault(row.pop("feature"), []).append(Word(**row))
        return {feature: tuple(words) for feature, words in found.items()}

    def examples(self, features: Sequence[int]) -> dict[int, list[Example]]:
        """The examples of each of `features`."""
        where, values = _among(features)
        rows = self.query(
            f"from examples {where} order by feature, "
            "case kind when 'top' then 0 when 'random' then 1 else 2 end, low, rank",
            values,
        )
        found: dict[int, list[Example]] = {feature: [] for feature in features}
        for row in rows:
            ids = tuple(row.pop("tokens"))
            del row["rank"]
            row["values"] = tuple(row["values"])
            found[row.pop("feature")].append(Example(**row, ids=ids, tokens=tuple(self.texts(ids))))
        return found

    def lenses(self, features: Sequence[int] | None = None) -> dict[int, Lens]:
        """What each feature's decoder row points at; empty before `add_lens`."""
        if not self.has("lens"):
            return {}
        where, values = _among(features)
        found = {}
        for row in self.query(f"from lens {where}", values):
            pairs = {
                name: tuple(zip(row[name], row[f"{name}_values"], strict=True))
                for name in ("promoted", "suppressed", "neighbours")
            }
            found[row["feature"]] = Lens(**pairs, reads_writes=row["reads_writes"], output_score=row["output_score"])
        return found

    def labels(self, features: Sequence[int] | None = None) -> dict[int, tuple[Label, ...]]:
        """The labels of some features (None: all), best score first."""
        if not self.has("labels"):
            return {}
        where, values = _among(features)
        rows = self.query(f"from labels {where} order by feature, score desc nulls last, method", values)
        found: dict[int, tuple[Label, ...]] = {}
        for row in rows:
            found[row["feature"]] = (*found.get(row["feature"], ()), Label(row["label"], row["method"], row["score"]))
        return found


def open_index(folder: str | PathLike[str] | Store) -> Index:
    """Open an index; of one at an address such as s3://bucket/index the tables are fetched, once.

    Raises `FileError` when the folder is not a finished index.
    """
    place = open_store(folder)
    if not place.exists(ABOUT):
        unfinished = place.names("state.*") or place.names("state/*")
        more = "it holds an unfinished build; run the same command again" if unfinished else (
            "`trimtab index build` makes one"
        )  # fmt: skip
        raise FileError(f"{folder} is not an index: {more}.")
    about = place.read_json(ABOUT)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise FileError(f"{folder} is an index of another format; this version reads format {FORMAT}.")
    return Index(fetch(place), about, place)


def titles(index: Index) -> dict[int, str]:
    """What to call each feature: its best label, or without one the four tokens that it fires on most."""
    words = index.words(most=4)
    found = {i: ", ".join(word.text.strip() for word in words.get(i, ())) for i in range(index.features)}
    return found | {i: labels[0].text for i, labels in index.labels().items()}


def check_belongs(index: Index, fingerprint: str, name: str) -> None:
    """`MismatchError` unless the index was made with the SAE of this fingerprint."""
    if index.about["sae_fingerprint"] != fingerprint:
        raise MismatchError(f"The index was made with the SAE {index.about['sae']!r}, not with {name!r}.")


def _among(features: Sequence[int] | None) -> tuple[str, Sequence[int]]:
    """A where clause and its values."""
    if features is None:
        return "", ()
    return f"where feature in ({', '.join('?' * len(features)) or 'null'})", features


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
