"""What the routes of features answer, field by field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.spec import Spec

Index = Annotated[int, Field(description="The feature's index in the SAE.")]
Labelled = Annotated[str, Field(description="Its first label, or nothing.")]


class Hit(Spec):
    """A feature that matches."""

    feature: Index
    score: Annotated[float, Field(description="How well; best first.")]
    why: Annotated[str, Field(description="Where each word was found.")]
    label: Labelled


class Hits(Spec):
    """What a search found."""

    features: Annotated[list[Hit], Field(description="Best first.")]


class Firing(Spec):
    """A feature that fires in the text."""

    feature: Index
    values: Annotated[list[float], Field(description="Its activation on each of the tokens, BOS left out.")]
    share: Annotated[
        float | None, Field(description="The largest as a share of the largest in the index, where there is one.")
    ]
    label: Labelled


class ActivationsFound(Spec):
    """What fires where."""

    tokens: Annotated[list[str], Field(description="The tokens, BOS left out.")]
    features: Annotated[list[Firing], Field(description="Features that fire, strongest first.")]


class Example(Spec):
    """A piece of text around a token on which the feature fires."""

    kind: Annotated[Literal["top", "random", "band"], Field(description="How it was chosen.")]
    low: Annotated[float | None, Field(description="Lower edge of its band of activations.")]
    high: Annotated[float | None, Field(description="Upper edge.")]
    value: Annotated[float, Field(description="The activation on the token.")]
    source: Annotated[str, Field(description="Which texts it is from.")]
    document: Annotated[int, Field(description="Number of the text.")]
    context: Annotated[int, Field(description="Number of the stretch that the model read at once.")]
    position: Annotated[int, Field(description="The token's place in it.")]
    at: Annotated[int, Field(description="The token's place in `tokens`.")]
    ids: Annotated[list[int], Field(description="Token ids.")]
    tokens: Annotated[list[str], Field(description="The tokens as text.")]
    values: Annotated[list[float], Field(description="The feature's activation on each.")]


class Word(Spec):
    """A token on which the feature fires."""

    token: Annotated[int, Field(description="Its id.")]
    text: Annotated[str, Field(description="Its text.")]
    count: Annotated[int, Field(description="How often the feature fires on it.")]
    seen: Annotated[int, Field(description="How often it occurs at all.")]


class Label(Spec):
    """Words for what the feature is about."""

    text: Annotated[str, Field(description="The words.")]
    method: Annotated[str, Field(description="Who found them, and how.")]
    score: Annotated[float | None, Field(description="How well they tell where it fires (0.5: chance).")]


class Lens(Spec):
    """What the feature's decoder row does by itself."""

    promoted: Annotated[list[tuple[str, float]], Field(description="Tokens it makes likelier, and by what logit.")]
    suppressed: Annotated[list[tuple[str, float]], Field(description="Tokens it makes less likely.")]
    neighbours: Annotated[
        list[tuple[int, float]], Field(description="Features with near decoder rows, and the cosine.")
    ]
    reads_writes: Annotated[str, Field(description="reads, writes, both, neither or unscored.")]
    output_score: Annotated[float | None, Field(description="How much adding it changes what is written.")]


class Feature(Spec):
    """What the index knows of a feature."""

    index: Index
    count: Annotated[int, Field(description="Tokens on which it fires.")]
    density: Annotated[float, Field(description="Their share of all tokens.")]
    mean: Annotated[float | None, Field(description="Mean activation where it fires.")]
    max: Annotated[float, Field(description="Largest activation.")]
    histogram: Annotated[
        list[tuple[float, float, int]], Field(description="From, to, and how many tokens have such an activation.")
    ]
    words: Annotated[list[Word], Field(description="Tokens on which it fires most often.")]
    words_error: Annotated[int, Field(description="By how much their counts may be too small.")]
    partners: Annotated[
        list[tuple[int, int]], Field(description="Features that fire on the same tokens, and how often.")
    ]
    partners_error: Annotated[int, Field(description="By how much these counts may be too small.")]
    sources: Annotated[list[tuple[str, int]], Field(description="How often it fires in which texts.")]
    examples: Annotated[list[Example], Field(description="Texts in which it fires.")]
    lens: Annotated[Lens | None, Field(description="What its decoder row does, where that was computed.")]
    labels: Annotated[list[Label], Field(description="Its labels.")]
