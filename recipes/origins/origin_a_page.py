# ruff: noqa: E501 (prose, as it stands on the page)
"""The page of origin A: what was done, what came out, and each suspicion's answer by a rule that is stated."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from common import Plain, block, code, hidden, interval, marked, table

LEAST = 0.005  # nats per token; a smaller difference is none

SUSPICIONS = {
    "localised": (
        "The features are not well localised",
        "Then features that are on in fewer places, or activations of fewer tokens, should steer better.",
    ),
    "layers": ("One layer is not enough", "Then another layer, or two together, should steer better."),
    "target": (
        "The difference of activations is the wrong target",
        "Then other ways to weigh features should steer better. They get the features that at least three texts share, "
        "and so do theirs for comparison. The last two rows use no features at all.",
    ),
    "pairs": (
        "Ten pairs are too few and say too little",
        "Then other tens should differ from each other, and more texts should steer better.",
    ),
}


def page(r: Plain) -> str:
    """The whole page as Markdown."""
    parts = [
        _head(r),
        _steps(r),
        _scalar(r),
        _regression(r),
        *_suspicions(r),
        _small(r),
        _texts(r),
        _checks(r),
        _end(r),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(r: Plain) -> str:
    s = r["settings"]
    many = s["many"]
    more = (
        f"The runs with hundreds learn from up to 300 of {many['positive']} statements a side of a model-written eval "
        f"({code(many['name'])}, Perez et al. 2022) and are measured on {many['measured']} others a side as well."
        if many
        else "The runs with hundreds of texts were left out: --many names an eval for them."
    )
    return f"""# Origin A: a persona from ten pairs

Written by `recipes/origins/agreeableness.py`, numbers and all; do not edit by hand. In 2024 a small team tried to steer
GPT-2 towards agreeableness with ten pairs of texts and the features of an SAE. Clusters of features made sense, and
pushing them hard changed what was written; the weights that a regression gave them did not make a persona. They left
five suspicions. Here their road is taken again, step by step, on `{s["model"]}` with the SAE `{s["saes"][0]}` at
`{s["sites"][0]}`, and each suspicion is tested.

The texts are the package's own set `agreeableness`: {s["few_count"]} pairs to learn from, {s["held_count"]} others to
measure on. {more}

**How it is measured.** The *shift* is how much likelier, in nats per token, the vector makes held-out texts that show
the persona than their opposites, with a 95 % bootstrap interval. Every vector is scaled to the same cost: predictions on
neutral text move by a mean KL of {s["kl"]} nats per token. No text is picked and nothing is tuned on what is measured."""


def _steps(r: Plain) -> str:
    p, f, c = r["positions"], r["features"], r["clusters"]
    where = f"{len(p['matter'])} of {len(p['slots'])}" if p["matter"] else "none"
    counts = table(
        ["features of a prompt", "median", "fewest", "most", "all prompts together"],
        [
            [name, median(f["per_prompt"][key]), min(f["per_prompt"][key]), max(f["per_prompt"][key]), f["union"][key]]
            for key, name in (("any", "all"), ("sparse", "on at most 10 % of tokens"), ("rare", "on at most 1 %"))
        ],
    )
    shown = table(
        ["cluster: words it fires on", "features", "cosine of decoder rows", "stability"],
        [
            [", ".join(code(w) for w in one["words"]) or "none", len(one["features"]), f"{one['cosine']:.2f}",
             f"{one['stability']:.2f}"]
            for one in c["clusters"]
        ],
    )  # fmt: skip
    found = (
        f"{c['count']} clusters hold {c['clustered']} features, and {c['loose']} are in none; the largest:\n\n{shown}"
        if c["count"]
        else f"No two of the {c['loose']} features are alike enough, so there is no cluster."
    )
    return f"""## Their steps

**1. Differences and positions.** The residuals of each pair are subtracted. Counted from the end, {where} of the
positions differ beyond what exchanged labels give (false discovery rate 5 %):

{block(p["strip"] + "  (first to last; dots do not differ)")}

**2. Features.** For each prompt, the features that are on somewhere in its positive text.

{counts}

**3. Clusters** of the {f["shared"]} sparse features that are on in at least three of the positive texts, by the cosine of
decoder rows and by being on together. {found}

Nothing so far has asked whether a feature is on in the *negative* texts: the clusters are of whatever ten sentences in
the first person have in common."""


def _scalar(r: Plain) -> str:
    s = r["scalar"]
    rows = []
    for p in s["points"]:
        x = p["shift"]
        rows.append(
            [f"{p['factor']:+g}", f"{p['kl']:.2f}", f"{p['perplexity']:.2f}", f"{p['repetition']:.0%}",
             "" if p["response"] is None else f"{p['response']:.0f}", p["state"],
             interval(x["shift"], x["low"], x["high"])]
        )  # fmt: skip
    made = table(["times the residual", "KL", "perplexity", "repetition", "response", "text is", "shift"], rows)
    at = s["shown_at"]
    up, down = (next(p["shift"] for p in s["points"] if p["factor"] == f) for f in (at, -at))
    said = (
        "the two signs do opposite things to the held-out texts"
        if up["low"] > 0 > down["high"]
        else "the two signs do *not* do opposite things to the held-out texts, beyond chance"
    )
    broken = [p["factor"] for p in s["points"] if p["state"] == "collapsed"]
    fine = (
        f"By the bounds of [the dose](dose.md), text has collapsed at {', '.join(f'{f:+g}' for f in broken)}."
        if broken
        else "Text has collapsed at none of these."
    )
    return f"""## Steering by a common scalar

They added every clustered feature with the same large scalar, 50 to 300 where a residual of GPT-2 is about 100 long, and
saw clear changes, and a marked opposite for a negative scalar. Here {s["count"]} features get one scalar. What is given
is the length of their sum, in lengths of the residual; theirs was more than half of one for each feature.

{made}

*Perplexity*: of the text written, as a multiple of unsteered text. *Response*: what the features do in it when the
unsteered model reads it. {fine} At {at:g} {said} ({interval(up["shift"], up["low"], up["high"])} up,
{interval(down["shift"], down["low"], down["high"])} down). That a text changes is a low bar: at such strengths most
directions change it.

{_lines(s["lines"], f"One text of each opening, at {-at:g}, 0 and {at:+g} times the residual; none is picked")}"""


def _lines(lines: Sequence[Plain], summary: str) -> str:
    most = max((max(one["strengths"]) for one in lines if one["strengths"]), default=0.0)
    shown = []
    for one in lines:
        head = f"{one['prompt']} … at {one['factor']:+g}"
        body = marked(one["tokens"], one["strengths"], most) if one["strengths"] else block(one["text"])
        shown.append(f"<p><b>{head}</b></p>\n{body}")
    return hidden(summary, "\n".join(shown))


def _way(one: Plain, against: bool = True) -> list[str]:
    cells = [one["name"], *(interval(*shift) for shift in one["shifts"])]
    return [*cells, interval(*one["against"][0])] if against else cells


def _heads(r: Plain, against: bool = True) -> list[str]:
    heads = ["", "shift, held-out pairs", *(["shift, held-out statements"] if r["settings"]["many"] else [])]
    return [*heads, "against theirs, pairs"] if against else heads


def _of(r: Plain, question: str) -> list[Plain]:
    return [one for one in _made(r) if one["question"] == question]


def _made(r: Plain) -> list[Plain]:
    return [one for one in r["ways"] if "refused" not in one]


def _regression(r: Plain) -> str:
    base = _of(r, "base")[0]
    above = [s[1] > 0 for s in base["shifts"]]
    answer = "It moves the held-out texts in the right direction" if all(above) else (
        "It moves one kind of held-out texts in the right direction and not the other" if any(above)
        else "It does not measurably move the held-out texts")  # fmt: skip
    rows = [_way(one, False) for one in (base, *_of(r, "control"))]
    return f"""## Steering by their regression

For each prompt, the combination of its decoded features that best fits its difference; then the mean over prompts.

{table(_heads(r, False), rows)}

{answer}. That is measured at matched cost and on likelihoods; what the recipe writes is below."""


def _suspicions(r: Plain) -> list[str]:
    parts = []
    for number, (question, (title, then)) in enumerate(SUSPICIONS.items(), start=1):
        tried = _of(r, question)
        if not tried:
            parts.append(f"## Suspicion {number}: {title.lower()}\n\nNot tested: it takes a second SAE (--second).")
            continue
        rows = [_way(_of(r, "base")[0]), *(_way(one) for one in tried)]
        body = table(_heads(r), rows)
        for one in r["ways"]:
            if one["question"] == question and "refused" in one:
                body += f"\n\nNot possible: {one['name']}: {one['refused'].rstrip('.')}."
        parts.append(f"## Suspicion {number}: {title.lower()}\n\n{then}\n\n{body}\n\n{_answer(tried)}")
    return parts


def _answer(tried: Sequence[Plain]) -> str:
    better = [one["name"] for one in tried if one["against"][0][1] > LEAST]
    worse = [one["name"] for one in tried if one["against"][0][2] < -LEAST]
    if not better:
        said = "**Not confirmed**: nothing here does more than theirs on the held-out pairs"
    else:
        said = f"**Confirmed** for {len(better)} of {len(tried)}: {'; '.join(better)}"
    less = f". Less than theirs: {'; '.join(worse)}" if worse else ""
    rule = (
        f"by the interval of the difference, which must lie beyond {LEAST} nats; {len(tried)} comparisons, uncorrected"
    )
    return f"{said}{less}. ({rule[:1].upper()}{rule[1:]}.)"


def _small(r: Plain) -> str:
    dense = next(one for one in _made(r) if one["name"].startswith("no features: mean"))
    shift = dense["shifts"][0]
    said = (
        "So this model *can* be moved towards the persona at this cost"
        if shift[1] > 0
        else "So not even that moves this model"
    )
    asked = r["asked"]
    extra = ""
    if asked:
        kinds = "; ".join(f"{kind}: {interval(*value)}" for kind, value in asked["by_kind"].items())
        plain = next(mass for strength, mass in asked["mass"] if strength == 0)
        extra = (
            f"\n\nAsked {asked['questions']} of the eval's questions, it is another matter: either answer is what the "
            f"unsteered model would say in {plain:.0%} of cases. The regression's recipe from hundreds of statements "
            f"changes the log-odds of the matching answer, per time the recipe, by {interval(*asked['slope'])}; where "
            f"the matching answer is {kinds}. Verdict: *{asked['verdict']}*. A model of this size is too small to "
            "*answer*, which is why nothing above rests on answers."
        )
    return f"""## Suspicion 5: the model is too small

A larger model is a matter of `--model`; what can be said here is whether this one can be moved at all. Adding the mean
difference of residuals, without features, gives {interval(*shift)} on the held-out pairs. {said}.{extra}"""


def _texts(r: Plain) -> str:
    parts = ["## What they write\n\nOne text of each opening, against, without and with the recipe; none is picked."]
    parts += [_lines(one["lines"], one["name"]) for one in r["texts"]]
    return "\n\n".join(parts)


def _checks(r: Plain) -> str:
    rows = [[one["name"], f"**{one['verdict']}**", "; ".join(one["reasons"])] for one in r["verified"]]
    made = table(["recipe", "verdict", "why"], rows).replace("---:", "---")
    texts = r["verified"][0]["texts"]
    return f"""## Verified

`trimtab verify` on three recipes that were fixed before any text was written: {texts} texts each with and without the recipe,
beside a random direction and the turned recipe at the same cost, read by the unsteered model. It asks whether the
recipe's strongest features are on more often in the text; it does not ask whether the text is agreeable.

{made}"""


def _end(r: Plain) -> str:
    base = _of(r, "base")[0]
    best = max(_made(r), key=lambda one: one["shifts"][0][0])
    worked = [one for one in _made(r) if one["shifts"][0][1] > 0]
    return f"""## In short

- Of {len(_made(r))} ways, {len(worked)} move the held-out pairs in the right direction beyond chance. Theirs:
  {interval(*base["shifts"][0])}; the largest: {best["name"]}, {interval(*best["shifts"][0])} (the largest of many, so
  somewhat flattered).
- A shift says that the persona's texts became likelier than their opposites. It does not say that a reader would call
  what is written agreeable.
- How the same questions come out on 18 sets rather than one: [finding, measured](finding-measured.md).

Again: `python recipes/origins/agreeableness.py --out runs/origin-a --page docs/origin-a.md` (with `--many FILE` for the
statements), or, for those who can download them, with `--model gpt2 --sae gpt2-small-res-jb/blocks.8.hook_resid_pre`."""
