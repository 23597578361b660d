"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT = "gemma-3-270m"


# The values of trimtab.spec.Unit, and those of trimtab.spec.Op that act on features. Written out here, so that --help
# need not load the specs.
Unit = Literal["raw", "max_act", "norm"]
Operation = Literal["add", "clamp", "scale", "ablate", "min", "max"]
Dtype = Literal["float32", "bfloat16", "float16", "auto"]

Prompts = Annotated[list[str], typer.Argument(metavar="PROMPT", help="One or more prompts.", show_default=False)]
ModelName = Annotated[str, typer.Option("--model", metavar="NAME", help="Hub id or folder of a causal language model.")]
SaeName = Annotated[
    str | None,
    typer.Option(
        "--sae",
        metavar="NAME",
        help="A shipped SAE, a folder or file, or RELEASE/ID of SAELens' registry (see `trimtab saes`).",
        show_default="the shipped one, for the default model",
    ),
]
SaeNames = Annotated[
    list[str] | None,
    typer.Option(
        "--sae",
        metavar="NAME",
        help="A shipped SAE, a folder or file, or RELEASE/ID of SAELens' registry; several of different sites are used "
        "together.",
        show_default="the shipped one, for the default model",
    ),
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        "-f",
        metavar="INDEX[:STRENGTH]",
        help="Feature and strength, such as 123:1.5 or 123:-2 (ablate: INDEX alone). Without strengths, "
        "--dose chooses. May be given several times.",
    ),
]
UnitOption = Annotated[
    Unit | None,
    typer.Option(
        "--unit",
        help="max_act: multiples of the feature's maximum activation. norm: multiples of the residual's own norm. "
        "raw: length added along the unit-normalised decoder row (for clamp, min, max: an activation; for --vector: "
        "a multiple of the vector as it is).",
        show_default="max_act; for --vector raw",
    ),
]
OperationOption = Annotated[Operation, typer.Option("--op", help="What is done to the features.")]
VectorFile = Annotated[
    Path | None,
    typer.Option(
        "--vector",
        metavar="FILE",
        help="Add a plain vector: .npy, .json (a list of numbers) or .safetensors (one tensor).",
    ),
]
SiteOption = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="SITE", help="Where --vector is added: a block index such as 9, or model.layers.9.output."
    ),
]
Strength = Annotated[
    float | None,
    typer.Option("--strength", help="Strength of --vector, in the --unit.", show_default="chosen by --dose"),
]
DoseOption = Annotated[
    str | None,
    typer.Option(
        "--dose",
        metavar="DOSE",
        help="Choose the strength by measurement: kl=0.5 (nats per token that predictions may move), ppl=1.2 (times "
        "the perplexity of unsteered text) or auto (the strongest at which text stays safe). Strengths that are given "
        "are then proportions. See docs/dose.md.",
        show_default="auto, where no strength is given",
    ),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", metavar="FILE", help="A saved recipe; joins what the other options ask for.")
]
SaveFile = Annotated[
    Path | None, typer.Option("--save", metavar="FILE", help="Write the recipe, by custom NAME.recipe.safetensors.")
]
Temperature = Annotated[float, typer.Option("--temperature", help="0 is greedy.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Draw from the K likeliest tokens only.", show_default="all")]
TopP = Annotated[
    float | None,
    typer.Option("--top-p", help="Draw from the likeliest tokens that make up this share.", show_default="all"),
]
MinP = Annotated[
    float | None,
    typer.Option(
        "--min-p", help="Draw from tokens at least this share as likely as the likeliest.", show_default="all"
    ),
]
NewTokens = Annotated[int, typer.Option("--max-new-tokens", help="Longest continuation, in tokens.")]
Controls = Annotated[
    list[str] | None,
    typer.Option(
        "--control",
        metavar="NAME",
        help="Control arm: random, sign-flipped, matched-feature, shuffled, mean-difference or prompt; may be given "
        "several times. 'none' for none.",
        show_default="all that can be run",
    ),
]
Contrast = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="FILE_OR_NAME",
        help="The contrast set that the recipe was found with; the arms shuffled and mean-difference need it.",
    ),
]
Ask = Annotated[
    str | None,
    typer.Option(
        "--ask",
        metavar="TEXT",
        help="Words that ask for the concept; the arm prompt puts them before each prompt.",
        show_default="made of the name of --pairs",
    ),
]
JudgePairs = Annotated[
    str | None,
    typer.Option(
        "--judge-pairs",
        metavar="FILE_OR_NAME",
        help="Labelled texts, best not those of --pairs, from which a classifier, a word list and (if installed) "
        "sentence embeddings learn to judge. See docs/judges.md.",
    ),
]
JudgeSae = Annotated[
    str | None,
    typer.Option(
        "--judge-sae",
        metavar="NAME",
        help="Another SAE, best of another block, whose features for --judge-pairs judge as well.",
    ),
]
FluencyModel = Annotated[
    str | None, typer.Option("--fluency-model", metavar="NAME", help="Another model that judges fluency.")
]
JudgeUrl = Annotated[
    str | None, typer.Option("--judge", metavar="URL", help="An OpenAI-compatible address that judges as well.")
]
JudgeModel = Annotated[str, typer.Option("--judge-model", metavar="NAME", help="The model at --judge.")]
JudgeConcept = Annotated[
    str | None,
    typer.Option(
        "--judge-concept", metavar="TEXT", help="What --judge is asked about.", show_default="the name of --pairs"
    ),
]
CurveOption = Annotated[
    bool,
    typer.Option("--curve", help="Also measure what weaker and stronger doses cost and do, for the report's picture."),
]
MarkdownFile = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", help="Write the whole evidence as Markdown.")
]
Read = Annotated[
    list[str] | None,
    typer.Option(
        "--read",
        metavar="INDEX:WEIGHT",
        help="Feature to read instead of the recipe's, and its weight (negative: should fall). For plain vectors.",
        show_default="the recipe's features",
    ),
]
ArmSamples = Annotated[int, typer.Option("--samples", "-n", min=2, help="Texts per prompt, in every arm.")]
HtmlFile = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the whole evidence as one self-contained page.")
]
Samples = Annotated[int, typer.Option("--samples", "-n", min=1, help="Texts per prompt.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same result.")]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", min=1, help="Texts written at a time.", show_default="what memory allows"),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say how many tokens it is and how long it takes, and stop.")]
RunAt = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Where the run goes, a folder or s3://bucket/folder; a run that is there goes on.",
    ),
]
Where = Annotated[
    str,
    typer.Option(
        "--on", metavar="WHERE", help="local, ray (a cluster that is there, else one here), or a cluster's address."
    ),
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Workers on Ray, each with a model of its own.")]
Device = Annotated[
    str | None, typer.Option("--device", help="Such as cpu or cuda.", show_default="cuda where there is one")
]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option("--dtype", help="Number format of the model.", show_default="float32 on a CPU"),
]
Blocks = Annotated[
    str | None,
    typer.Option(
        "--blocks",
        metavar="PATH",
        help="For an unknown architecture: the path to its list of blocks, such as model.layers.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
