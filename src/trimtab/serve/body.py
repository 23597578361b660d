"""What the bodies of all requests have in common."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from trimtab.spec import Spec


class Body(Spec):
    """Base of all bodies: text that is no text is refused, wherever in the body it stands."""

    @model_validator(mode="before")
    @classmethod
    def _characters(cls, value: Any) -> Any:
        """JSON can escape half of a surrogate pair, which no tokenizer and no file takes."""
        left = [value]
        while left:
            one = left.pop()
            if isinstance(one, str):
                if not one.isascii() and any("\ud800" <= character <= "\udfff" for character in one):
                    raise ValueError("a text has half of a surrogate pair, which is no character")
            elif isinstance(one, dict):
                left += [*one, *one.values()]
            elif isinstance(one, (list, tuple)):
                left += one
        return value
