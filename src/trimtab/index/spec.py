"""What an index is asked to hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trimtab.spec import Spec


class IndexSpec(Spec):
    """What an index holds. `top`, `random` and `per_band` are examples of each feature; an example is the firing token
    with `before` and `after` tokens around it. `words` and `partners` are how many tokens and features are counted
    for each feature; pairs are counted among the `pairs` strongest features of each token.
    """

    context: Annotated[int, Field(ge=8)] = 128
    tokens: Annotated[int, Field(ge=1)] | None = None
    field: str = "text"
    top: Annotated[int, Field(ge=1)] = 20
    random: Annotated[int, Field(ge=0)] = 10
    per_band: Annotated[int, Field(ge=0)] = 4
    per_document: Annotated[int, Field(ge=1)] = 1
    before: Annotated[int, Field(ge=0, le=10_000)] = 24
    after: Annotated[int, Field(ge=0, le=10_000)] = 8
    words: Annotated[int, Field(ge=1)] = 128
    partners: Annotated[int, Field(ge=1)] = 64
    pairs: Annotated[int, Field(ge=0)] = 8
    window: Annotated[int, Field(ge=1)] = 256
    seed: int = 0
