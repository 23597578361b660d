"""Origin B again: four features chosen by index before looking, two texts each, none picked; then what that cannot say.

    python recipes/origins/four_features.py --out runs/origin-b --page docs/origin-b.md
    python recipes/origins/four_features.py --out runs/stories --page runs/stories.md \
        --model roneneldan/TinyStories-33M --sae runs/tinystories/sae --index runs/tinystories-index --strength 10

The second is for an SAE that `trimtab train --preset tinystories-33m` made, and an index of it by `trimtab index
build`. --strength is the length added along the unit decoder row, as they had it; without, it is the dose that costs
0.5 nats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import origin_b_page
from common import OPENINGS, Plain, allow, claim, kept, open_pair, parser, write_page

from trimtab.cli.features import open_chosen
from trimtab.evidence.lines import steered_lines
from trimtab.evidence.verify import verify
from trimtab.index.show import groups
from trimtab.index.store import Example, Feature, Index, check_belongs
from trimtab.lm.model import Model
from trimtab.report.curves import draw
from trimtab.sae.sae import SAE
from trimtab.steer.dose import choose, measure_dose
from trimtab.steer.dose_picture import picture
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.recipe import Recipe

FEATURES = (0, 1, 2, 6)
DOSE = "kl=0.5"
PROMPT = "Once upon a time"
FACTORS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)
SHOWN = 3  # examples of a group on the page


@dataclass(frozen=True, eq=False)
class Study:
    """What is replayed on what. strength: the length added along the unit decoder row; None for the dose."""

    model: Model
    sae: SAE
    index: Index
    features: tuple[int, ...]
    strength: float | None
    samples: int
    seed: int
    folder: Path

    def settings(self) -> Plain:
        return {
            "model": self.model.name, "sae": self.sae.name, "site": str(self.sae.site), "features": self.features,
            "strength": self.strength, "dose": DOSE, "samples": self.samples, "seed": self.seed,
            "d_sae": self.sae.d_sae, "tokens": self.index.tokens, "prompt": PROMPT,
        }  # fmt: skip


def replay(study: Study) -> Plain:
    """Everything about each feature, each part made once; pictures of doses in the folder."""
    return {"settings": study.settings(), "features": {str(i): one_feature(study, i) for i in study.features}}


def one_feature(study: Study, index: int) -> Plain:
    folder = study.folder / f"feature-{index}"
    strength = kept(folder, "strength", lambda: _strength(study, index))
    recipe = Recipe.add(study.sae, {index: strength}, unit="raw")
    known = study.index.feature(index)
    length = float(study.sae.rows([index]).norm())
    most = float(study.sae.max_act[index]) if study.sae.max_act is not None else known.max
    return {
        "about": _known(known), "guess": guess(known), "strength": strength, "max_strength": most * length,
        "lines": kept(folder, "texts", lambda: _texts(study, recipe)),
        **kept(folder, "verified", lambda: _verified(study, recipe, index)),
        "dose": kept(folder, "dose", lambda: _dose(study, recipe, index)),
    }  # fmt: skip


def _strength(study: Study, index: int) -> float:
    if study.strength is not None:
        return study.strength
    return choose(study.model, Recipe.add(study.sae, {index: 1.0}, unit="raw"), DOSE, NEUTRAL).recipe.features[index]


def _texts(study: Study, recipe: Recipe) -> list[Plain]:
    lines = steered_lines(
        study.model, [study.sae], recipe, (PROMPT,), (0.0, 1.0), samples=2, max_new_tokens=100, temperature=1.0,
        seed=study.seed,
    )  # fmt: skip
    return [one.as_dict() for one in lines]


def _verified(study: Study, recipe: Recipe, index: int) -> Plain:
    evidence = verify(
        study.model, study.sae, recipe, OPENINGS, samples=study.samples, max_new_tokens=40, seed=study.seed,
        controls=("random", "matched-feature"), question=f"Does adding feature {index} make it fire?",
    )  # fmt: skip
    first = f"firing:{evidence.primary}"
    arms = [
        {"label": arm.label, "firing": asdict_of(arm.scores[first]), "kl": arm.kl,
         "log_likelihood": asdict_of(arm.scores["log_likelihood"])}
        for arm in evidence.arms
    ]  # fmt: skip
    return {"verdict": evidence.verdict, "reasons": evidence.reasons, "arms": arms}


def _dose(study: Study, recipe: Recipe, index: int) -> Plain:
    curve = measure_dose(study.model, recipe, FACTORS, NEUTRAL, sae=study.sae, texts=6, seed=study.seed)
    draw(study.folder / f"origin-b-{index}.svg", picture(curve))
    return {"said": curve.in_words(), "points": [{**asdict(p), "state": curve.state(p)} for p in curve.points]}


def asdict_of(value: object) -> list[float | None]:
    return [getattr(value, name) for name in ("mean", "low", "high")]


def _known(feature: Feature) -> Plain:
    """What the index says of a feature, over the whole range of its activations."""
    return {
        "count": feature.count, "density": feature.density, "max": feature.max,
        "label": [[one.text, one.score] for one in feature.labels][:1],
        "groups": [
            {"heading": heading, "examples": [{"tokens": e.tokens, "values": e.values, "value": e.value}
                                              for e in found[:SHOWN]], "peaks": [word_of(e) for e in found]}
            for heading, found in groups(feature.examples)
        ],
    }  # fmt: skip


def word_of(example: Example) -> str:
    """The token that an example was chosen for, plainly."""
    return example.tokens[example.at].strip().lower()


def guess(feature: Feature) -> Plain:
    """What the strongest examples alone suggest: the word that most of them peak on; and how much of the feature it is.

    share: of all firings over the index's corpus, those on that word in any spelling. None: no word leads.
    """
    top = [word_of(one) for one in feature.examples if one.kind == "top"]
    if not top:
        return {"word": None, "of": 0, "peaks": [], "share": None}
    word, times = Counter(top).most_common(1)[0]
    if times * 2 < len(top) or not word:
        return {"word": None, "of": len(top), "peaks": top, "share": None}
    fired = sum(one.count for one in feature.words if one.text.strip().lower() == word)
    return {
        "word": word,
        "of": len(top),
        "times": times,
        "peaks": top,
        "share": min(1.0, fired / max(1, feature.count)),
    }


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--features", type=int, nargs="+", default=list(FEATURES), help="by index, before looking")
    arguments.add_argument("--index", type=Path, help="an index of the SAE (default: the shipped one)")
    arguments.add_argument("--strength", type=float, help="length added along the unit decoder row")
    arguments.add_argument("--samples", type=int, default=5, help="texts a prompt and arm of the verification")
    asked = arguments.parse_args(words)
    model, sae = open_pair(asked.model, asked.sae)
    index = open_chosen(asked.index, asked.sae)
    check_belongs(index, sae.fingerprint, sae.name)
    study = Study(
        model=model, sae=sae, index=index, features=tuple(sae.features(asked.features)), strength=asked.strength,
        samples=asked.samples, seed=asked.seed, folder=asked.out,
    )  # fmt: skip
    claim(asked.out, study.settings())
    allow(asked.parts)
    results = replay(study)
    if asked.page:
        for picture_of in asked.out.glob("*.svg"):
            write_page(asked.page.parent / "img" / picture_of.name, picture_of.read_text(encoding="utf-8"))
        write_page(asked.page, origin_b_page.page(results))


if __name__ == "__main__":
    main()
