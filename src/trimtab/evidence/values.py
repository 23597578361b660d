"""What a verification found, as plain frozen values: everything measured, every sample, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
    """One way of writing, with its mean scores over samples.

    Keys: `firing:TARGET` (share of generated tokens whose strength is above 0), `mean:TARGET` and `max:TARGET`
    (strength), `log_likelihood` (nats per generated token under the unsteered model), `distinct_2`, `repetition`, and
    `judge:NAME` of each judge.
    """

    name: str
    label: str
    scores: dict[str, Interval]


class Contrast(Spec):
    """Paired difference `arm` minus `against`, sample by sample (same prompt, same seed). Keys as in `Arm`.

    `ratios`: per `firing:TARGET` key, the arm's rate over the other's; None means "from 0" (or both 0), not infinity.
    """

    arm: str
    against: str
    scores: dict[str, Interval]
    ratios: dict[str, float | None]


class Selectivity(Spec):
    """Where a target's feature stands among all features by the change of its mean strength, recipe minus unsteered.

    `rank` 1 changed most in the wanted direction, `of` is the number of features. `top` lists the features that
    changed most, with their change.
    """

    target: str
    feature: int
    rank: int
    of: int
    change: float
    top: tuple[tuple[int, float], ...]


class Made(Spec):
    """Everything needed to get the same numbers again."""

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
    judges: tuple[str, ...] = ()
    versions: dict[str, str]


class Evidence(Spec):
    """The outcome of `verify`. Every sample of every arm is kept; none is picked."""

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
