"""The values that travel everywhere: sites, scopes, sampling settings. No torch here.

All are frozen and strict: an unknown key or a value out of range is an error that says what is valid.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trimtab.errors import InputError

Unit = Literal["raw", "max_act", "norm"]
Op = Literal["add", "clamp", "scale", "ablate", "min", "max", "vector", "project"]

UNITS: tuple[Unit, ...] = ("raw", "max_act", "norm")
LATENT_OPS: tuple[Op, ...] = ("clamp", "scale", "ablate", "min", "max")

_SITE_NAMES = (
    (re.compile(r"^(\d+)$"), 0),
    (re.compile(r"^(?:.*\.)?(?:layers|h|blocks)\.(\d+)(?:\.output|\.hook_resid_post)?$"), 0),
    (re.compile(r"^blocks\.(\d+)\.hook_resid_pre$"), -1),
)


_PARTS, _LONG = 5, 120  # of an error: wrong fields that are named, and characters of what is quoted


class Spec(BaseModel):
    """Base of all value objects: frozen, unknown keys refused, errors in one sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Validate a plain value (such as parsed JSON); raises `InputError` naming each wrong field."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise InputError(f"Invalid {cls.__name__}: {_sentence(error)}") from None


class Site(Spec):
    """A place in the residual stream: the output of block `layer`, counted from 0 (`resid_post`).

    `layer` -1 is the stream that enters block 0 (the embeddings). Printed one way: `model.layers.9.output`.
    """

    layer: Annotated[int, Field(ge=-1)]

    def __str__(self) -> str:
        return f"model.layers.{self.layer}.output" if self.layer >= 0 else "model.layers.0.input"

    @classmethod
    def of(cls, name: int | str | Site) -> Site:
        """Read a site from a block index, our own name, or a TransformerLens hook name.

        `blocks.8.hook_resid_pre` is the stream that enters block 8, so it is the output of block 7.
        """
        if isinstance(name, Site):
            return name
        if isinstance(name, int) and not isinstance(name, bool) and name >= -1:
            return cls(layer=name)
        text = str(name).strip()
        if text == "model.layers.0.input":
            return cls(layer=-1)
        for pattern, shift in _SITE_NAMES:
            found = pattern.match(text)
            if found:
                return cls(layer=int(found.group(1)) + shift)
        raise InputError(
            f"Unknown site {name!r}. Valid: a block index such as 9, 'model.layers.9.output', "
            "'blocks.9.hook_resid_post' or 'blocks.9.hook_resid_pre'."
        )


class Scope(Spec):
    """Which positions an edit touches.

    Positions are absolute and count from 0 at a row's first real token, so padding never shifts them.
    `window` is half-open, [start, stop), with `stop` None for no end. BOS is left alone unless `bos` is true.
    """

    prompt: Annotated[bool, Field(description="Edit tokens of the prompt.")] = True
    generated: Annotated[bool, Field(description="Edit tokens that are generated.")] = True
    window: Annotated[
        tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)] | None] | None,
        Field(description="Edit only positions from the first number up to, not including, the second (null: no end)."),
    ] = None
    exclude: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(description="Positions to leave alone, counted from 0.")
    ] = ()
    bos: Annotated[bool, Field(description="Edit the token that begins every text, too.")] = False

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not (self.prompt or self.generated):
            raise ValueError("an empty scope: neither prompt nor generated tokens would be edited")
        if self.window is not None and self.window[1] is not None and self.window[1] <= self.window[0]:
            raise ValueError(f"an empty scope: window {self.window} ends before it starts")
        return self


class Sampling(Spec):
    """How the next token is drawn. Temperature 0 is greedy; the filters apply in the order top_k, top_p, min_p."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 100
    temperature: Annotated[float, Field(ge=0)] = 1.0
    top_k: Annotated[int, Field(ge=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None


class Dose(Spec):
    """How strong is wanted, by what it costs. Written `kl=0.5`, `ppl=1.2` or `auto`.

    `kl`: mean KL to the unsteered model, in nats per token. `ppl`: perplexity of steered text under the unsteered
    model, as a multiple of that of unsteered text. `auto`: by the rule in docs/dose.md; its budget is None.
    """

    measure: Literal["kl", "ppl", "auto"]
    budget: float | None = None

    @model_validator(mode="after")
    def _budget_in_range(self) -> Self:
        if self.measure == "auto":
            if self.budget is not None:
                raise ValueError("'auto' takes no number")
            return self
        least = 1 if self.measure == "ppl" else 0
        if self.budget is None or self.budget <= least:
            raise ValueError(f"{self.measure!r} needs a number above {least}, such as {self.measure}={least + 0.5:g}")
        return self

    @classmethod
    def of(cls, dose: str | Dose) -> Dose:
        """Read a dose as people write it; raises `InputError` saying what is valid."""
        if isinstance(dose, Dose):
            return dose
        measure, equals, number = str(dose).strip().lower().partition("=")
        if measure not in ("kl", "ppl", "auto") or bool(equals) == (measure == "auto"):
            raise InputError(f"A dose is kl=NUMBER, ppl=NUMBER or auto, such as kl=0.5, not {dose!r}.")
        return cls.parse({"measure": measure, "budget": finite(number, "The number of a dose") if equals else None})

    def __str__(self) -> str:
        return self.measure if self.budget is None else f"{self.measure}={self.budget:g}"


def finite(value: float | str, what: str) -> float:
    """`value` as a float, or `InputError` naming `what` when it is not a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} must be a number, not {value!r}.") from None
    if not math.isfinite(number):
        raise InputError(f"{what} must be a finite number, not {number}.")
    return number


def _sentence(error: ValidationError) -> str:
    """Its parts, the first few, each short: what is quoted comes from files that anyone may have made."""
    parts, items = [], error.errors()
    for item in items[:_PARTS]:
        where = _short(".".join(str(p) for p in item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        given = "" if isinstance(item["input"], dict) else f" (given {_short(repr(item['input']))})"
        parts.append(f"{where}: {message}{given}" if where else message)
    if len(items) > _PARTS:
        parts.append(f"and {len(items) - _PARTS} more")
    return "; ".join(parts) + "."


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}..."
