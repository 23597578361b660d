"""A smaller copy of an index, to pass on beside an SAE: fewer examples, shorter ones, numbers with fewer digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from trimtab.errors import FileError
from trimtab.files import write_folder, write_json
from trimtab.index.store import Index, open_index
from trimtab.index.tables import write_parts, write_table
from trimtab.spec import Spec

if TYPE_CHECKING:
    import pyarrow as pa

_DIGITS = 1 << 16  # activations keep as many bits as bfloat16 has: three of their digits are right


class PackSpec(Spec):
    """What stays of each feature: examples of each kind, tokens `before` and `after` the firing one, words, partners,
    promoted and suppressed tokens and neighbours.
    """

    top: Annotated[int, Field(ge=1)] = 5
    random: Annotated[int, Field(ge=0)] = 2
    per_band: Annotated[int, Field(ge=0)] = 1
    before: Annotated[int, Field(ge=0)] = 14
    after: Annotated[int, Field(ge=0)] = 6
    words: Annotated[int, Field(ge=1)] = 12
    partners: Annotated[int, Field(ge=0)] = 8
    lens: Annotated[int, Field(ge=1)] = 10


def pack(index: Index, folder: str | Path, spec: PackSpec | None = None) -> Index:
    """Write a smaller copy of `index` to `folder`, which must not exist, and open it.

    What stays is as it was, but for the activations of examples and logits, rounded to bfloat16. Counts, densities,
    histograms and labels are those of the whole index. `index.json` says what was left out, under "packed".
    """
    spec, folder = spec or PackSpec(), Path(folder)
    if folder.exists():
        raise FileError(f"{folder} exists; choose another folder, or remove that one.")
    with write_folder(folder) as part:
        for name, sql in _queries(spec).items():
            if index.has(name):
                columns = _columns(index.table(sql))
                write_parts(part, name, _rounded(columns) if name in ("examples", "lens") else columns, small=True)
        for name in ("tokens", "labels", "map"):
            if index.has(name):
                write_table(part / f"{name}.parquet", _columns(index.table(f"from {name}")), small=True)
        write_json(part / "index.json", {**index.about, "packed": spec.model_dump()})
    return open_index(folder)


def _queries(spec: PackSpec) -> dict[str, str]:
    around = f"[greatest(1, examples.at + 1 - {spec.before}):examples.at + 1 + {spec.after}]"
    ends = ", ".join(
        f"{name}[1:{spec.lens}] as {name}"
        for one in ("promoted", "suppressed", "neighbours")
        for name in (one, f"{one}_values")
    )
    kept = {"top": spec.top, "random": spec.random, "band": spec.per_band}
    which = " or ".join(f"(kind = '{kind}' and rank < {n})" for kind, n in kept.items())
    return {
        "features": "from features order by feature",
        "examples": f"select * replace (tokens{around} as tokens, values{around} as values, "
        f'least(examples.at, {spec.before})::smallint as "at") from examples where {which} '
        "order by feature, kind = 'band', kind = 'random', low, rank",
        "words": _most("words", "count desc, token", spec.words),
        "partners": _most("partners", "count desc, other", spec.partners),
        "sources": "from sources order by feature, source",
        "lens": f"select feature, {ends}, output_score, concentration, reads_writes from lens order by feature",
    }


def _most(table: str, order: str, most: int) -> str:
    """The first rows of each feature."""
    return (
        f"from {table} qualify row_number() over (partition by feature order by {order}) <= {most} "
        f"order by feature, {order}"
    )


def _columns(table: pa.Table) -> dict[str, Any]:
    return {name: table[name].combine_chunks() for name in table.column_names}


def _rounded(columns: dict[str, Any]) -> dict[str, Any]:
    """The same with float32 numbers rounded to the nearest bfloat16."""
    import pyarrow as pa

    def rounded(column: Any) -> Any:
        if pa.types.is_list(column.type) and pa.types.is_float32(column.type.value_type):
            return pa.ListArray.from_arrays(column.offsets, rounded(column.values))
        if not pa.types.is_float32(column.type) or column.null_count:
            return column
        bits = column.to_numpy(zero_copy_only=False).view(np.uint32)
        odd = (bits // _DIGITS) & 1
        kept = (bits + (_DIGITS // 2 - 1) + odd) // _DIGITS * _DIGITS
        return pa.array(kept.astype(np.uint32).view(np.float32))

    return {name: rounded(column) for name, column in columns.items()}
