"""What the routes of the page answer, field by field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trimtab.serve.feature_responses import Index
from trimtab.spec import Spec

Sides = Annotated[tuple[str, str], Field(description="What its positive and its negative side show.")]
Title = Annotated[str, Field(description="Its best label, or else tokens that it fires on most.")]
Score = Annotated[float | None, Field(description="How well the label tells where it fires (0.5: chance).")]
Density = Annotated[float, Field(description="Share of the tokens on which it fires.")]
Max = Annotated[float, Field(description="Largest activation in the index.")]


class ModelServed(Spec):
    """The model."""

    name: Annotated[str, Field(description="What requests give as `model`.")]
    layers: Annotated[int, Field(description="Its blocks.")]
    context: Annotated[int, Field(description="Most tokens of a prompt and its text together.")]


class SaeServed(Spec):
    """The SAE whose features are meant."""

    name: Annotated[str, Field(description="Its name.")]
    site: Annotated[str, Field(description="Where in the model it reads and writes.")]
    features: Annotated[int, Field(description="How many features it has.")]


class IndexServed(Spec):
    """The index of its features."""

    about: Annotated[str, Field(description="Where its numbers come from, in words.")]
    features: Annotated[int, Field(description="How many features it has.")]
    map: Annotated[bool, Field(description="Whether it has a map.")]


class SetName(Spec):
    """A shipped contrast set."""

    name: Annotated[str, Field(description="Its name.")]
    sides: Sides


class ContrastTexts(SetName):
    """A shipped contrast set with its texts."""

    paired: Annotated[bool, Field(description="Whether text i of both sides belong together.")]
    positive: Annotated[list[str], Field(description="Texts that show it.")]
    negative: Annotated[list[str], Field(description="Texts that do not.")]


class MostOfAll(Spec):
    """What a request may ask for."""

    prompt_tokens: Annotated[int, Field(description="Tokens of a prompt.")]
    max_tokens: Annotated[int, Field(description="Tokens of a text.")]
    rows: Annotated[int, Field(description="Texts of one request.")]


class Snippet(Spec):
    """A piece of a text in which the feature fires."""

    tokens: Annotated[list[str], Field(description="The tokens.")]
    values: Annotated[list[float], Field(description="The feature's activation on each.")]


class Card(Spec):
    """A feature in short. Without an index only its number, why it is here and `max_act` are known."""

    feature: Index
    why: Annotated[str, Field(description="Where a search found its words; else nothing.")]
    max_act: Annotated[float | None, Field(description="The SAE's largest activation, the unit of strengths.")] = None
    label: Title = ""
    score: Score = None
    density: Density = 0.0
    max: Max = 0.0
    words: Annotated[tuple[str, ...], Field(description="Tokens on which it fires most often.")] = ()
    promoted: Annotated[tuple[str, ...], Field(description="Tokens that its decoder row makes likelier.")] = ()
    reads_writes: Annotated[
        str | None, Field(description="reads, writes, both or neither, where that was measured.")
    ] = None
    histogram: Annotated[
        tuple[tuple[float, float, int], ...],
        Field(description="From, to, how many tokens have such an activation."),
    ] = ()
    examples: Annotated[tuple[Snippet, ...], Field(description="Where it fires most strongly.")] = ()


class Cards(Spec):
    """Features in short."""

    cards: Annotated[list[Card], Field(description="In the order asked for; of a search, best first.")]


class Beginning(Spec):
    """Features to show before anybody has asked for some."""

    words: Annotated[str, Field(description="What was searched for, or nothing.")]
    cards: Annotated[list[Card], Field(description="What was found.")]


class Start(Spec):
    """What is served."""

    version: Annotated[str, Field(description="Of trimtab.")]
    model: Annotated[ModelServed, Field(description="The model.")]
    sae: Annotated[SaeServed | None, Field(description="The first SAE.")]
    index: Annotated[IndexServed | None, Field(description="The index of the first SAE.")]
    sets: Annotated[list[SetName], Field(description="The contrast sets that come with trimtab.")]
    recipes: Annotated[list[str], Field(description="Ids of the saved recipes.")]
    limits: Annotated[MostOfAll, Field(description="What a request may ask for.")]
    example: Annotated[Beginning, Field(description="Features to begin with.")]


class Listed(Spec):
    """A feature of a list."""

    feature: Index
    count: Annotated[int, Field(description="Tokens on which it fires.")]
    density: Density
    max: Max
    label: Title
    score: Score


class Features(Spec):
    """A page of features."""

    features: Annotated[list[Listed], Field(description="In the order asked for.")]
    total: Annotated[int, Field(description="How many there are in all.")]


class FeatureMap(Spec):
    """Where features lie: all lists but the last three have one entry a feature."""

    feature: Annotated[list[int], Field(description="Its index.")]
    x: Annotated[list[float], Field(description="0 to 1.")]
    y: Annotated[list[float], Field(description="0 to 1, upwards.")]
    cluster: Annotated[list[int], Field(description="Number of its cluster, -1 for none.")]
    labels: Annotated[list[str], Field(description="What it is called.")]
    names: Annotated[list[str], Field(description="What the clusters are called.")]
    colours: Annotated[list[str], Field(description="One after the other for clusters, and round again.")]
    loose: Annotated[str, Field(description="The colour of features in no cluster.")]


class Reading(Spec):
    """What the unsteered model reads in one text."""

    tokens: Annotated[list[str], Field(description="The tokens of `text`.")]
    shares: Annotated[
        list[list[float]],
        Field(description="By feature, then by token: the activation over the feature's largest on record."),
    ]


class Readings(Spec):
    """What the unsteered model reads."""

    features: Annotated[list[int], Field(description="The features.")]
    readings: Annotated[list[Reading], Field(description="One for each passage.")]


class Cell(Spec):
    """A number of a table in words."""

    text: Annotated[str, Field(description="The number.")]
    mark: Annotated[str, Field(description="A sign that the notes explain.")]
    interval: Annotated[str, Field(description="Its interval in brackets.")]
    note: Annotated[str, Field(description="How many texts have no score.")]


class Grid(Spec):
    """A table."""

    headings: Annotated[list[str], Field(description="Over its columns; the first is over the names of the rows.")]
    rows: Annotated[list[tuple[str, list[Cell]]], Field(description="The name of each row, and its numbers.")]


class VerdictInWords(Spec):
    """A verification in words, as its report has them."""

    verdict: Annotated[str, Field(description="See docs/evidence.md.")]
    kind: Annotated[Literal["good", "bad", "mixed"], Field(description="The colour of it.")]
    reasons: Annotated[list[str], Field(description="What it rests on.")]
    arms: Annotated[Grid, Field(description="Scores by arm.")]
    notes: Annotated[list[str], Field(description="What has to be known to read the table.")]
    selectivity: Annotated[list[str], Field(description="Where the targets stand among all features.")]
