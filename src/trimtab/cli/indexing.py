"""`trimtab index build` and `label`: one pass over texts, and what features are called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli import options as o
from trimtab.cli.console import out, print_json, say
from trimtab.cli.progress import Bars

if TYPE_CHECKING:
    from trimtab.index.labels import Snippet
    from trimtab.index.store import Index
    from trimtab.lm.model import Model
    from trimtab.sae.activations import Progress
    from trimtab.sae.sae import SAE

Folder = Annotated[
    str, typer.Argument(metavar="INDEX", help="Folder of an index, or s3://bucket/folder.", show_default=False)
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the result goes.")]
Heldout = Annotated[
    list[str] | None,
    typer.Option("--heldout", metavar="TEXTS", help="Unseen texts to score labels on; may be given several times."),
]
Some = Annotated[
    list[int] | None,
    typer.Option("--feature", "-f", help="A feature to label; may be given several times.", show_default="all"),
]
Field = Annotated[str, typer.Option("--field", help="The text column of .jsonl and .parquet files.")]


def build(
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXTS",
            help="Files (.jsonl, .txt, .parquet, each plain or gzipped) or Hugging Face dataset names.",
            show_default=False,
        ),
    ],
    out_folder: o.RunAt,
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    tokens: Annotated[
        int | None, typer.Option("--tokens", help="Stop after so many tokens.", show_default="all")
    ] = None,
    context: Annotated[int, typer.Option("--context", help="Tokens the model reads at a time.")] = 128,
    top: Annotated[int, typer.Option("--top", help="Strongest examples of each feature.")] = 20,
    random: Annotated[int, typer.Option("--random", help="Random firings of each feature.")] = 10,
    per_band: Annotated[int, typer.Option("--per-band", help="Examples of each half octave of activation.")] = 4,
    per_document: Annotated[
        int, typer.Option("--per-document", help="Examples of one kind from one document, at most.")
    ] = 1,
    scores: Annotated[
        bool, typer.Option("--scores/--no-scores", help="Measure the output score of every feature that fires.")
    ] = True,
    heldout: Heldout = None,
    field: Field = "text",
    where: o.Where = "local",
    workers: o.Workers = 1,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    seed: o.Seed = 0,
    as_json: o.Json = False,
) -> None:
    """Index every feature over texts: examples of all strengths, histograms, tokens, partners, logit lens, labels.

    A build that was interrupted goes on with the same command, and ends with the same result.
    """
    from trimtab.cli.build import open_pair
    from trimtab.index import build as b
    from trimtab.index.labels import add_rule_labels
    from trimtab.index.lens import add_lens
    from trimtab.scale.run import On

    spec = b.IndexSpec.parse(
        {
            "context": context,
            "tokens": tokens,
            "field": field,
            "top": top,
            "random": random,
            "per_band": per_band,
            "per_document": per_document,
            "seed": seed,
        }
    )
    model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
    assert sae is not None
    with Bars() as bars:

        def show(p: Progress) -> None:
            note = f"{p.rate:,.0f} {p.unit}/s" if p.rate else ""
            bars.show(p.stage, p.done, p.total or p.done, note if p.total else f"{p.done:,} {p.unit}  {note}")

        index = b.build(model, sae, texts, out_folder, spec, on=On(where, workers), progress=show, say=say)
        found = _scores(model, sae, index) if scores else None
        add_lens(model, sae, index, output_scores=found, progress=show)
        snippets = _snippets(model, sae, index, range(index.features), heldout, field)
        labels = add_rule_labels(index, None, snippets, progress=show)
    _report(index, {i: label.score for i, label in labels.items()}, as_json)


def label(
    folder: Folder,
    endpoint: Annotated[
        str,
        typer.Option(
            "--endpoint", metavar="URL", help="An OpenAI-compatible address, such as http://localhost:8080/v1."
        ),
    ],
    llm: Annotated[str, typer.Option("--llm", metavar="NAME", help="The model to ask there.")],
    features: Some = None,
    heldout: Heldout = None,
    field: Field = "text",
    model_name: o.ModelName = o.DEFAULT,
    sae_name: o.SaeName = None,
    device: o.Device = None,
    dtype: o.DtypeOption = None,
    blocks: o.Blocks = None,
    as_json: o.Json = False,
) -> None:
    """Label features with a language model behind an endpoint, scored by detection on unseen texts.

    The key is read from OPENAI_API_KEY. Without --heldout the labels are kept unscored.
    """
    from trimtab.index.endpoint import Labeller
    from trimtab.index.labels import add_labels, detection
    from trimtab.index.records import Label
    from trimtab.index.store import open_index

    index = open_index(folder)
    asked = Labeller(endpoint, llm, os.environ.get("OPENAI_API_KEY"))
    live = {row["feature"] for row in index.query("from features where count > 0")}
    chosen = [index.check(i) for i in features] if features else sorted(live)
    snippets: dict[int, list[Snippet]] = {}
    if heldout:
        from trimtab.cli.build import open_pair

        model, sae = open_pair(model_name, sae_name, device, dtype, blocks, need_sae=True)
        assert sae is not None
        snippets = _snippets(model, sae, index, chosen, heldout, field)
    made = {}
    with Bars() as bars:
        for done, number in enumerate(chosen, 1):
            text = asked.explain(index.feature(number))
            seen = snippets.get(number, [])
            score = detection(text, seen, asked.judge) if seen else None
            made[number] = Label(text, asked.method, score)
            add_labels(index, {number: made[number]})  # each answer is kept, whatever happens to the next one
            bars.show("labels", done, len(chosen))
    _report(index, {i: one.score for i, one in made.items()}, as_json)


def _scores(model: Model, sae: SAE, index: Index) -> dict[int, float]:
    """The output score of every feature that fires; those that an earlier run has stored are not measured again."""
    from trimtab.find.output import output_scores

    live = [row["feature"] for row in index.query("from features where count > 0 order by feature")]
    known = {i: lens.output_score for i, lens in index.lenses().items() if lens.output_score is not None}
    left = [i for i in live if i not in known]
    if left:
        say(f"measuring the output scores of {len(left):,} features")
    return known | {one.index: one.score for one in output_scores(model, sae, left)}


def _snippets(
    model: Model, sae: SAE, index: Index, features: range | list[int], heldout: list[str] | None, field: str
) -> dict[int, list[Snippet]]:
    if not heldout:
        return {}
    from trimtab.index.labels import held_out

    say("reading the held-out texts")
    return held_out(model, sae, heldout, list(features), field=field, limit=index.about["sink_limit"])


def _report(index: Index, scores: dict[int, float | None], as_json: bool) -> None:
    known = sorted(score for score in scores.values() if score is not None)
    result = {
        "index": str(index.place),
        "tokens": index.tokens,
        "features": index.features,
        "live": index.query("from features select count(*) filter (count > 0) as n")[0]["n"],
        "labelled": len(scores),
        "scored": len(known),
        "detection_mean": sum(known) / len(known) if known else None,
    }
    if as_json:
        print_json(result)
        return
    shown = (
        "unscored"
        if result["detection_mean"] is None
        else f"detection {result['detection_mean']:.3f} on {len(known):,}"
    )
    out().print(
        f"{index.place}\n  {result['live']:,} of {index.features:,} features fired in {index.tokens:,} tokens\n"
        f"  {len(scores):,} labels, {shown}",
        markup=False,
    )
