"""The CSV of lm-evaluation-harness' model `steered`: an SAE of SAELens' registry by name, a feature, a coefficient.

The harness keeps one row for each hookpoint, and with several hookpoints its hooks all add the last row's vector; so
one feature is what such a file can carry. Its `clamp` sets the residual's component along the decoder row, which is
not a clamp of the feature. The coefficient multiplies the decoder row as SAELens loads it.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trimtab.errors import InputError, UnsupportedError
from trimtab.files import write_file
from trimtab.steer.exchange.bounded import Foreign, read_text
from trimtab.steer.exchange.neuronpedia import raw_strengths
from trimtab.steer.exchange.pushes import EVERY_TOKEN, Notes, edits, scope_notes
from trimtab.steer.recipe import Recipe

if TYPE_CHECKING:
    from trimtab.sae.sae import SAE

NAME = "lm-eval"
COLUMNS = (
    "loader", "action", "sparse_model", "hookpoint", "feature_index", "steering_coefficient", "sae_id", "description",
)  # fmt: skip
_HOOKPOINT = re.compile(r"(?:.*\.)?(?:layers|h|blocks)\.([0-9]{1,6})")


class Row(Foreign):
    """One row of the CSV."""

    loader: Literal["sae_lens"]
    action: Literal["add"]
    sparse_model: str
    hookpoint: str
    feature_index: Annotated[int, Field(ge=0)]
    steering_coefficient: float
    sae_id: str


def write(recipe: Recipe, path: Path, name: str | None) -> Notes:
    """One row. `name` is RELEASE/ID of the SAE in SAELens' registry, by default the name it was opened by."""
    notes = scope_notes(recipe, NAME)
    rows = [(edit, raw_strengths(edit, NAME)) for edit in edits(recipe)]
    if len(rows) > 1 or len(rows[0][1]) > 1:
        raise UnsupportedError(f"The format {NAME} can carry one feature of one SAE, and this recipe has several.")
    (edit, strengths) = rows[0]
    ((index, strength),) = strengths.items()
    assert edit.spec.sae is not None
    release, slash, sae_id = (name or edit.spec.sae.name).partition("/")
    if not (release and slash and sae_id) or edit.spec.site.layer < 0:
        raise UnsupportedError(
            f"The harness opens SAEs of blocks by SAELens' names, RELEASE/ID, and {name or edit.spec.sae.name!r} is "
            "none; say which it is with --name."
        )
    length = float(edit.tensors["rows"].norm())
    if not length:
        raise InputError(f"Feature {index} has a decoder row of zeros, so adding it does nothing.")
    hookpoint = f"layers.{edit.spec.site.layer}"
    values = ("sae_lens", "add", release, hookpoint, index, repr(strength / length), sae_id, "")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, values])
    with write_file(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")
    return (
        *notes,
        f"The hookpoint is called {hookpoint}; some architectures have another name (GPT-2: h.{edit.spec.site.layer}).",
        f"The coefficient is for a decoder row of length {length:.4g}; if SAELens loads another length, scale it.",
    )


def read(path: Path, sae: SAE | None) -> tuple[Recipe, Notes]:
    """An `add` edit; `sae` must be the SAE that the row names, since the file holds no vectors."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise InputError(f"it is not CSV ({error})") from None
    if len(rows) != 1:
        raise InputError(f"it has {len(rows)} rows, and the harness keeps one feature")
    row = Row.parse({str(key): value for key, value in rows[0].items()})
    if sae is None:
        raise InputError("it names a feature and holds no vector: give the SAE it belongs to (--sae)")
    named = f"{row.sparse_model}/{row.sae_id}"
    place = _HOOKPOINT.fullmatch(row.hookpoint)
    if not place or int(place.group(1)) != sae.site.layer:
        raise InputError(f"its hookpoint is {row.hookpoint[:60]!r}, and {sae.name} is of {sae.site}")
    length = float(sae.rows([row.feature_index]).norm())
    strengths = {row.feature_index: row.steering_coefficient * length}
    notes = (
        () if sae.name == named else (f"The file names the SAE {named[:80]!r}; that it is {sae.name} is not checked.",)
    )
    return Recipe.add(sae, strengths, unit="raw", scope=EVERY_TOKEN), notes
