"""What a verification found, as plain frozen values: everything measured, every sample, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, JsonValue

from trimtab.evidence.stats import Interval
from trimtab.spec import Sampling, Site, Spec

if TYPE_CHECKING:
    from trimtab.steer.generate import Record

Verdict = Literal[
    "works",
    "works but not selectively",
    "only with degenerate text",
    "weak effect",
    "no effect",
    "reversed",
    "not measured",
]
UNSTEERED, RECIPE = "unsteered", "recipe"


class Judge(Protocol):
    """Scores texts by other means than the recipe's own features; `name` heads its column in tables.

    It gets the generated texts of all arms in one list, as records without a recipe: it must not know what wrote them.
    It returns one finite number for each, or None for a text that it cannot score. None is counted, and is never 0.
    """

    @property
    def name(self) -> str:
        """A short name, different from that of every other judge in use."""

    def __call__(self, texts: Sequence[Record], /) -> Sequence[float | None]:
        """One score per text, in their order."""


class Target(Spec):
    """Something that is read in the texts: one feature, or the weighted sum of several.

    Its strength at a token is sum_i weights[i] * f_i * ||d_i||, in residual units. `wanted` is 1 where the recipe is
    meant to raise it, -1 where it is meant to lower it.
    """

    name: str
    features: tuple[int, ...]
    weights: tuple[float, ...]
    wanted: Literal[1, -1] = 1
    max_strength: float | None = None
    density: float | None = None


class Sample(Spec):
    """One generated text. `tokens` and `strengths[target][token]` are of the generated tokens alone.

    `scores`: by key (see `Arm`), None where a score cannot be had (no token generated, too short for a 4-gram).
    """

    arm: str
    prompt: int
    sample: int
    seed: int
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    strengths: tuple[tuple[float, ...], ...]
    scores: dict[str, float | None]

    @property
    def text(self) -> str:
        """The generated text, without the prompt."""
        return "".join(self.tokens)


class Arm(Spec):
    """One way of writing, with its mean scores over samples. Every prompt counts the same.

    Keys: `firing:TARGET` (share of generated tokens whose strength is above 0), `mean:TARGET` and `max:TARGET`
    (strength), `log_likelihood` (nats per generated token under the unsteered model), `distinct_2`, `repetition`, and
    `judge:NAME` of each judge. `kl`: mean KL(arm || unsteered) in nats per token on neutral texts; `reached`: whether
    it is within a quarter of the recipe's, as it should be (None: not asked); `factor`: what the strengths of a control
    were multiplied by for that, their median (None: they could not be).
    """

    name: str
    label: str
    scores: dict[str, Interval]
    kl: float | None = None
    reached: bool | None = None
    factor: float | None = None


class Contrast(Spec):
    """Paired difference `arm` minus `against`, sample by sample (same prompt, same seed). Keys as in `Arm`.

    `ratios`: per `firing:TARGET` key, the arm's rate over the other's; None means "from 0" (or both 0), not infinity.
    `wrong_way`: per `firing:TARGET` key, the share of prompts whose mean moved away from what is wanted.
    `corrected`: per `firing:TARGET` key, the p-value after Holm's correction (of recipe against unsteered only): the
    first target's over the recipes verified together, the other targets' over the features of the recipe.
    """

    arm: str
    against: str
    scores: dict[str, Interval]
    ratios: dict[str, float | None]
    wrong_way: dict[str, float | None] = Field(default_factory=dict)
    corrected: dict[str, float | None] = Field(default_factory=dict)


class Moved(Spec):
    """How far one feature's mean strength moved: `change` in residual units, `standardised` over its spread."""

    feature: int
    change: float
    standardised: float


class Selectivity(Spec):
    """Where a target's feature stands among all `of` features by how far the recipe moved them, from unsteered.

    The standardised change of a feature is (m1 - m0) / sqrt((v1 + v0) / 2 + s^2): means and variances, over texts, of
    its mean strength in a text, and s the median of sqrt((v1 + v0) / 2) over the features that fired at all, without
    which features that hardly ever fire would come first (as in Tusher et al. 2001). `rank` 1 moved furthest in the
    wanted direction; `rank_by_change` is the rank by the bare change. `top`: those that moved furthest.
    """

    target: str
    feature: int
    rank: int
    rank_by_change: int
    of: int
    change: float
    standardised: float
    top: tuple[Moved, ...]


class JudgeNote(Spec):
    """What is known of a judge: what its scores are, and how well it tells texts whose answer is known.

    `skill`: AUC on held-out texts and what belongs to it, or None for one that learned nothing; `odds`: intercept and
    slope of the log-odds that a text of some score is of the positive side; `refusal`: why it scored nothing.
    """

    name: str
    about: str = ""
    good: int = 1
    skill: dict[str, JsonValue] | None = None
    odds: tuple[float, float] | None = None
    refusal: str | None = None


class Edited(Spec):
    """What a recipe edited at one site, in the first sample of each prompt: tokens edited, and how many there were.

    `ratio`: mean of ||change|| / ||residual|| over the edited tokens.
    """

    site: str
    prompt_tokens: tuple[int, int]
    generated_tokens: tuple[int, int]
    ratio: float


class Made(Spec):
    """Everything needed to get the same numbers again.

    `skipped`: controls that could not be run, and why. `contrast`: digest of the contrast set. `ask`: the words of the
    arm "prompt". `command`: what was typed, if anything was.
    """

    model: str
    model_fingerprint: str
    sae: str
    sae_fingerprint: str
    site: Site
    recipe: str
    recipe_digest: str
    prompts: tuple[str, ...]
    samples: int
    sampling: Sampling
    seed: int
    controls: tuple[str, ...]
    skipped: dict[str, str] = Field(default_factory=dict)
    contrast: str | None = None
    ask: str | None = None
    judges: tuple[JudgeNote, ...] = ()
    receipt: tuple[Edited, ...] = ()
    command: str = ""
    versions: dict[str, str]


class Evidence(Spec):
    """The outcome of `verify`. Every sample of every arm is kept; none is picked.

    `dose`: what other strengths do, if that was measured: `DoseCurve.as_dict()`, and the factor used as "used".
    """

    format: Literal["trimtab.evidence/1"] = "trimtab.evidence/1"
    question: str
    verdict: Verdict
    reasons: tuple[str, ...]
    primary: str
    targets: tuple[Target, ...]
    arms: tuple[Arm, ...]
    contrasts: tuple[Contrast, ...]
    selectivity: tuple[Selectivity, ...]
    samples: tuple[Sample, ...]
    dose: dict[str, JsonValue] | None = None
    made: Made

    @property
    def summary(self) -> str:
        """The verdict and its reasons in one line."""
        return f"{self.verdict}: " + "; ".join(self.reasons) + "."

    def arm(self, name: str) -> Arm:
        """The arm of that name; KeyError when it was not run."""
        return {arm.name: arm for arm in self.arms}[name]

    def contrast(self, arm: str, against: str = UNSTEERED) -> Contrast:
        """The paired difference of two arms; KeyError when it was not made."""
        return {(c.arm, c.against): c for c in self.contrasts}[arm, against]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """All of it as JSON text; `Evidence.parse(json.loads(text))` gives the same value back."""
        return self.model_dump_json(indent=1)

    def to_html(self, path: str | PathLike[str], title: str | None = None) -> None:
        """Write one self-contained page, completely or not at all."""
        from trimtab.report.html import write_page

        write_page(path, [self.as_dict()], title=title or self.question)

    def to_markdown(self, title: str | None = None) -> str:
        """The report as Markdown text."""
        from trimtab.report.markdown import markdown

        return markdown([self.as_dict()], title=title or self.question, command=self.made.command)
