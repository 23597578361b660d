# ruff: noqa: E501 (prose, as it stands on the page)
"""The page of origin B: four features, what two texts suggest, and what there is to say beyond them."""

from __future__ import annotations

from collections.abc import Sequence

from common import Plain, block, code, hidden, marked, table

HALF = 0.5


def page(r: Plain) -> str:
    """The whole page as Markdown."""
    s = r["settings"]
    parts = [_head(s), *(_feature(int(i), one, s) for i, one in r["features"].items()), _end(r)]
    return "\n\n".join(parts) + "\n"


def _head(s: Plain) -> str:
    strength = (
        f"as much as costs {s['dose'].removeprefix('kl=')} nats per token on neutral text (their strength, 10, was found by hand)"
        if s["strength"] is None
        else f"{s['strength']:g} along the unit decoder row, as they did"
    )
    return f"""# Origin B: four features, chosen before looking

Written by `recipes/origins/four_features.py`, numbers and all; do not edit by hand. In 2024 one person trained an SAE on
TinyStories-33M, added rows of its decoder while the model wrote, and fed the text back into the unsteered model to see
where the feature fires. Four features were shown, chosen by their index and not by their looks, with two texts each. One
failed, two partly worked, and one had been misread: its strongest examples all said "fire", its weaker ones "earthquake"
and "flood". Here the same indices, {", ".join(map(str, s["features"]))}, of `{s["sae"]}` ({s["d_sae"]:,} features of
`{s["model"]}` at `{s["site"]}`), in the same order: look at the strongest examples, guess, steer, feed back. Then comes
what two texts cannot say.

Each is pushed by {strength}, at every token. Prompt: "{s["prompt"]}"; 100 tokens at temperature 1; two samples; nothing
is picked or left out. The examples are of an index over {s["tokens"]:,} tokens."""


def _feature(index: int, one: Plain, s: Plain) -> str:
    about = one["about"]
    if about["count"] == 0:
        known = f"It never fired in {s['tokens']:,} tokens, so there are no examples and no guess."
    else:
        label = f" The index calls it {code(about['label'][0][0])}." if about["label"] else ""
        known = f"It fires on {about['density']:.3%} of tokens ({about['count']:,} times), at most {about['max']:.4g}.{label}"
    share = one["strength"] / one["max_strength"] if one["max_strength"] else 0.0
    pushed = f"{one['strength']:,.0f} in residual units" + (
        f", {share:.2g} times what its own strongest activation adds" if share else ""
    )
    parts = [
        f"## Feature {index}",
        known,
        f"**First guess.** {_guess(one['guess'])}",
        f"**Two texts**, pushed by {pushed}.",
        _texts(one["lines"]),
        f"**With intervals and controls.** {s['samples']} texts of each of 3 prompts in every arm: "
        f"*{one['verdict']}*: {'; '.join(one['reasons'])}.",
        _arms(one["arms"]),
        f"**By strength** (1 is the strength above). {one['dose']['said']}",
        f"![Cost, perplexity, repetition and response of feature {index} by strength](img/origin-b-{index}.svg)",
        f"**Over the whole range.** {_verdict(one['guess'])}" if about["count"] else "",
        _groups(about["groups"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _guess(guess: Plain) -> str:
    if not guess["of"]:
        return "None."
    peaks = ", ".join(code(word) for word in guess["peaks"])
    if guess["word"] is None:
        return f"None: its {guess['of']} strongest examples peak on {peaks}, with no word that leads."
    return f"{code(guess['word'])}, on which {guess['times']} of its {guess['of']} strongest examples peak ({peaks})."


def _verdict(guess: Plain) -> str:
    if guess["word"] is None:
        return "There was no guess to hold against it."
    if guess["share"] >= HALF:
        return f"The guess holds: {guess['share']:.0%} of all firings are on {code(guess['word'])}."
    return (
        f"The guess is wrong, or far too narrow: only {guess['share']:.0%} of all firings are on {code(guess['word'])}. "
        "The strongest examples alone would have misled."
    )


def _texts(lines: Sequence[Plain]) -> str:
    most = max((max(one["strengths"]) for one in lines if one["strengths"]), default=0.0)
    parts = []
    for one in lines:
        head = f"{'steered' if one['factor'] else 'unsteered'}, sample {one['sample'] + 1}"
        parts.append(f"<p><b>{head}</b></p>\n{block(one['text'])}")
        if one["strengths"]:
            parts.append(hidden("Where the feature fires, read by the unsteered model",
                                marked(one["tokens"], one["strengths"], most)))  # fmt: skip
    return "\n".join(parts)


def _arms(arms: Sequence[Plain]) -> str:
    def share(value: Sequence[float | None]) -> str:
        mean, low, high = value
        return "" if mean is None else f"{mean:.2%}" + (f" [{low:.2%}, {high:.2%}]" if low is not None else "")

    def nats(value: Sequence[float | None]) -> str:
        return "" if value[0] is None else f"{value[0]:.2f}"

    rows = [
        [
            one["label"],
            share(one["firing"]),
            nats(one["log_likelihood"]),
            "" if one["kl"] is None else f"{one['kl']:.2f}",
        ]
        for one in arms
    ]
    return table(["arm", "tokens on which it fires", "log-likelihood, nats a token", "KL"], rows)


def _groups(groups: Sequence[Plain]) -> str:
    parts = []
    for group in groups:
        most = max(max(e["values"]) for e in group["examples"])
        texts = "\n".join(marked(e["tokens"], e["values"], most) for e in group["examples"])
        parts.append(f"<p><b>{group['heading']}</b></p>\n{texts}")
    return hidden("Examples, from the strongest to random ones", "\n".join(parts)) if parts else ""


def _end(r: Plain) -> str:
    made = r["features"].values()
    rows = []
    for index, one in r["features"].items():
        word = one["guess"]["word"]
        held = "" if word is None else ("yes" if one["guess"]["share"] >= HALF else "no")
        rows.append([index, code(word) if word else "none", held, one["verdict"]])
    worked = sum(one["verdict"] == "works" for one in made)
    return f"""## In short

{table(["feature", "first guess", "does the guess hold?", "does pushing it make it fire?"], rows)}

Pushing made {worked} of {len(r["features"])} fire by the rules of [the verdict](evidence.md). "Works" means that the
feature is on more often in what is written, more than controls of the same cost; it does not mean that the text is
about what a person would call the feature.

Again: `python recipes/origins/four_features.py --out runs/origin-b --page docs/origin-b.md`; for TinyStories-33M see the
top of that file."""
