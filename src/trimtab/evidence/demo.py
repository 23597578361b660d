"""The demonstration: three everyday concepts, one SAE feature each, chosen by rule, steered and proved.

Nothing is chosen by looking at texts. The rules, in the order in which they are applied:

1. Concepts: `CONCEPTS`, named before the shipped SAE was trained and kept since. An earlier trial with another SAE had
   shown all three to be within reach of a model of this size, so they say nothing about how many concepts can be
   steered; the benchmark does.
2. Feature: of the features that fire on at most `MAX_DENSITY` of all tokens and on at least `MIN_COVERAGE` of the
   concept's sentences, and whose difference held-out sentences confirm, the `CANDIDATES` with the largest effect size
   between sentences with and without the concept; of these, and not below `MIN_EFFECT` of the largest effect, the one
   with the largest gain: how much more likely held-out sentences with the concept become, against those without, when
   the feature is added at a fixed KL (`trimtab.find.gain`). The output score of Arad et al. (2025) is shown but not
   used: trials had it near 0 for every feature of this model.
3. Strength: the largest multiple in `GRID` of the feature's maximum activation up to which the mean KL to the unsteered
   model, on ten neutral sentences, stays within `KL_BUDGET`; where none does, the smallest, and the demo says so.
4. Texts: `PROMPTS`, every sample kept; printed is the first of each prompt, all are in the page.
5. Verdict: the rules of `trimtab.evidence.verdict`. A concept that fails is shown as failed.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import RenderableType
from rich.text import Text

from trimtab.errors import InputError
from trimtab.evidence.plan import Job
from trimtab.evidence.values import Evidence
from trimtab.evidence.verify_many import verify_many
from trimtab.evidence.write import Progress
from trimtab.find.gain import Curvature, curvature
from trimtab.find.pairs import ContrastSet
from trimtab.find.select import SHARES, Filters, select, with_output
from trimtab.find.sources import shipped
from trimtab.report import terminal
from trimtab.report.html import write_page
from trimtab.spec import Sampling, Spec
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import costs

if TYPE_CHECKING:
    from trimtab.lm.load import Model
    from trimtab.sae.sae import SAE

CONCEPTS = ("sea", "food", "war")
PROMPTS = ("Once upon a time", "I walked into the room and", "The most interesting thing about")
MAX_DENSITY = 0.02
MIN_COVERAGE = 0.25
CANDIDATES = 5
MIN_EFFECT = 0.5
GRID = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
KL_BUDGET = 0.5
CONTROLS = ("random",)
NEW_TOKENS = 40
SAMPLES = 8
MODEL = SAE_NAME = "gemma-3-270m"
PAGE = "trimtab-demo.html"

Say = Callable[[RenderableType], None]


class Candidate(Spec):
    """A feature that was considered: effect, share of the concept's sentences it fires on, gain in nats per token."""

    feature: int
    effect: float
    coverage: float
    density: float
    gain: float
    output: float
    promoted: tuple[str, ...]


class Choice(Spec):
    """What the rules chose for a concept. `feature` is None when no feature passed; then nothing was steered.

    `kl`: mean KL in nats for each strength of the grid. `within_budget`: whether the chosen strength is.
    """

    concept: str
    candidates: tuple[Candidate, ...]
    feature: int | None = None
    strength: float | None = None
    kl: dict[str, float] = Field(default_factory=dict)
    within_budget: bool = True


class DemoResult(Spec):
    """Choices and evidence by concept, in the order of `CONCEPTS`; the evidence is None where nothing was chosen."""

    choices: tuple[Choice, ...]
    evidence: tuple[Evidence | None, ...]
    page: str

    @property
    def worked(self) -> int:
        """How many concepts have the verdict "works"."""
        return sum(one is not None and one.verdict == "works" for one in self.evidence)

    def to_json(self) -> str:
        """All of it as JSON text."""
        return self.model_dump_json(indent=1)


def run_demo(
    say: Say,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    page: str | PathLike[str] = PAGE,
    model: str = MODEL,
    sae: str | PathLike[str] = SAE_NAME,
    progress: Progress | None = None,
) -> DemoResult:
    """Run the demonstration, telling `say` what happens, and write the page. See the rules at the top of this file."""
    from trimtab.lm.load import open_model
    from trimtab.sae.load import open_sae

    return demonstrate(
        open_model(model), open_sae(str(sae)), say, samples=samples, seed=seed, page=page, progress=progress
    )


def demonstrate(
    model: Model,
    sae: SAE,
    say: Say,
    *,
    concepts: Sequence[ContrastSet] | None = None,
    prompts: Sequence[str] = PROMPTS,
    neutral: Sequence[str] | None = None,
    samples: int = SAMPLES,
    new_tokens: int = NEW_TOKENS,
    seed: int = 0,
    page: str | PathLike[str] = PAGE,
    progress: Progress | None = None,
) -> DemoResult:
    """`run_demo` with everything open to be replaced."""
    sets = [shipped(name) for name in CONCEPTS] if concepts is None else list(concepts)
    texts = neutral_texts() if neutral is None else list(neutral)
    if not sets:
        raise InputError("The demo needs at least one concept.")
    choices = []
    curve = curvature(model, sae.site)
    for contrast in sets:
        choices.append(choose(model, sae, contrast, texts, curve))
        say(_chosen(choices[-1]))
    jobs = {
        _question(c): Job(Recipe.add(sae, {c.feature: c.strength}))
        for c in choices
        if c.feature is not None and c.strength
    }
    found: dict[str, Evidence] = {}
    if jobs:
        sampling = Sampling(max_new_tokens=new_tokens)
        made = verify_many(
            model,
            sae,
            jobs,
            prompts,
            samples=samples,
            sampling=sampling,
            seed=seed,
            controls=CONTROLS,
            progress=progress,
        )
        found = {evidence.question: evidence for evidence in made}
    result = DemoResult(
        choices=tuple(choices), evidence=tuple(found.get(_question(c)) for c in choices), page=str(Path(page))
    )
    _report(result, say, samples, seed)
    return result


def choose(model: Model, sae: SAE, contrast: ContrastSet, neutral: Sequence[str], curve: Curvature) -> Choice:
    """Apply rules 2 and 3 to one concept. `curve` is `curvature(model, sae.site)`."""
    rule = Filters(max_density=MAX_DENSITY, min_coverage=MIN_COVERAGE)
    train, held, _ = contrast.split(SHARES)
    found = select(model, sae, train, held, pool="max", limit=CANDIDATES, order="input", filters=rule, output=False)
    scored = with_output(model, sae, found, held, curve)
    candidates = tuple(
        Candidate(
            feature=s.index,
            effect=s.effect,
            coverage=s.coverage,
            density=s.density,
            gain=s.gain or 0.0,
            output=s.output or 0.0,
            promoted=s.promoted[:8],
        )
        for s in scored
    )
    if not candidates:
        return Choice(concept=contrast.name, candidates=())
    least = MIN_EFFECT * candidates[0].effect
    best = max((c for c in candidates if c.effect >= least), key=lambda c: (c.gain, c.effect))
    priced = costs(model, Recipe.add(sae, {best.feature: 1.0}), GRID, neutral, places=40)  # every token of a sentence
    kls = [cost.kl for cost in priced]
    strength = strongest_within(GRID, kls, KL_BUDGET)
    return Choice(
        concept=contrast.name,
        candidates=candidates,
        feature=best.feature,
        strength=GRID[0] if strength is None else strength,
        kl={f"{s:g}": kl for s, kl in zip(GRID, kls, strict=True)},
        within_budget=strength is not None,
    )


def strongest_within(strengths: Sequence[float], kls: Sequence[float], budget: float) -> float | None:
    """The largest strength up to which no smaller one of the grid has a KL over `budget`; None when all have."""
    chosen = None
    for strength, kl in sorted(zip(strengths, kls, strict=True)):
        if kl > budget:
            break
        chosen = strength
    return chosen


def neutral_texts() -> list[str]:
    """The shipped sentences about nothing in particular, on which the dose is measured."""
    lines = (resources.files("trimtab") / "data" / "demo" / "neutral.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def _question(choice: Choice) -> str:
    return f"Does feature {choice.feature} make the model write about “{choice.concept}”?"


def _chosen(choice: Choice) -> Text:
    if choice.feature is None or choice.strength is None:
        return Text(f"{choice.concept}: no feature tells sentences with and without it apart. Failed.", style="red")
    best = next(c for c in choice.candidates if c.feature == choice.feature)
    kl = choice.kl[f"{choice.strength:g}"]
    why = (
        f"the strongest of {', '.join(choice.kl)} whose KL on neutral text stays within {KL_BUDGET:g} nats ({kl:.2f})"
        if choice.within_budget
        else f"even this, the weakest of {', '.join(choice.kl)}, is over the KL budget of {KL_BUDGET:g} nats ({kl:.2f})"
    )
    return Text(
        f"{choice.concept}: feature {best.feature}, the largest gain ({best.gain:.2f} nats per token) of the "
        f"{len(choice.candidates)} that best tell the concept's sentences apart (effect size {best.effect:.1f}, "
        f"fires on {best.coverage:.0%} of them; promotes {_words(best.promoted)}). "
        f"Strength {choice.strength:g} times its maximum activation: {why}."
    )


def _words(promoted: Sequence[str]) -> str:
    """The first promoted tokens that can be shown, each once."""
    shown = [word.strip() for word in promoted if word.strip() and word.strip().isprintable()]
    return ", ".join(f"“{word}”" for word in list(dict.fromkeys(shown))[:4])


def _report(result: DemoResult, say: Say, samples: int, seed: int) -> None:
    for choice, evidence in zip(result.choices, result.evidence, strict=True):
        if evidence is None:
            continue
        data = evidence.as_dict()
        say(Text(f"\n{evidence.question}", style="bold"))
        say(terminal.verdict(data))
        say(terminal.table(data))
        say(
            Text(
                f"The first of {samples} samples for each prompt; the bars show where feature {choice.feature} fires.",
                style="dim",
            )
        )
        for sample in terminal.samples(data, per_prompt=1):
            say(sample)
    shown = [one.as_dict() for one in result.evidence if one is not None]
    say(Text(f"\n{result.worked} of {len(result.choices)} concepts work by the rules.", style="bold"))
    if not shown:
        return
    write_page(
        result.page, shown, title="Steering Gemma-3-270M, with the proof", intro=_intro(result),
        command=shlex.join(["trimtab", "demo", "--samples", str(samples), "--seed", str(seed)]),
    )  # fmt: skip
    say(Text(f"All samples, side by side: {result.page}"))


def _intro(result: DemoResult) -> str:
    failed = [c.concept for c in result.choices if c.feature is None]
    lost = f"\n\nFor {', '.join(failed)} no feature passed the rules, so nothing was steered." if failed else ""
    chosen = "".join(f"\n\n{_chosen(c)}" for c in result.choices if c.feature is not None)
    return (
        "Concepts were named in advance; features and strengths were chosen by rule before any text was written. Every "
        "text was read again by the unsteered model, which tells at each token whether the feature fires."
        + chosen
        + lost
    )
