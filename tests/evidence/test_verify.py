from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.evidence import arms, stats
from trimtab.evidence import verify as v
from trimtab.evidence.measure import Text, read_texts, sample_of
from trimtab.evidence.plan import Job
from trimtab.evidence.targets import targets_of
from trimtab.evidence.trace import trace
from trimtab.evidence.values import Evidence
from trimtab.evidence.verify_many import verify_many
from trimtab.spec import Sampling, Scope
from trimtab.steer.generate import Record
from trimtab.steer.recipe import Recipe
from trimtab.testing.planted import PlantedWorld

PROMPTS = ["the cat saw", "a dog found", "every child", "the house", "a tree was", "the stone"]


def check(world: PlantedWorld, recipe: Recipe, **settings: Any) -> Evidence:
    return v.verify(
        world.model,
        world.sae,
        recipe,
        PROMPTS,
        **{"samples": 4, "max_new_tokens": 24, "controls": ("random",), **settings},
    )


def test_the_planted_writer_is_verified(world: PlantedWorld) -> None:
    for feature in world.concepts.values():
        evidence = check(world, Recipe.add(world.sae, {feature: 1.0}))
        assert evidence.verdict == "works", evidence.summary


def test_the_reader_fires_on_the_same_words_and_is_not_verified(world: PlantedWorld) -> None:
    for feature in world.readers.values():
        evidence = check(world, Recipe.add(world.sae, {feature: 1.0}))
        assert evidence.verdict == "no effect", evidence.summary


def test_a_random_direction_is_not_verified(world: PlantedWorld) -> None:
    feature = world.concepts["sea"]
    recipe = Recipe.add(world.sae, {feature: 1.0})
    for seed in range(3):
        random = arms.control_recipe("random", recipe, world.sae, seed, 0, 0)
        assert check(world, random, read={feature: 1.0}).verdict not in ("works", "works but not selectively")


def test_it_fails_when_the_vector_is_removed(world: PlantedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strength 0 writes the unsteered texts, token for token; so does a model whose edits are lost on the way."""
    feature = world.concepts["fire"]
    nothing = check(world, Recipe.add(world.sae, {feature: 0.0}), read={feature: 1.0})
    assert nothing.verdict == "no effect"
    texts = {arm: [s.text for s in nothing.samples if s.arm == arm] for arm in ("unsteered", "recipe")}
    assert texts["unsteered"] == texts["recipe"]
    monkeypatch.setattr(Recipe, "compile_rows", staticmethod(lambda recipes, model: []))
    assert check(world, Recipe.add(world.sae, {feature: 1.0})).verdict == "no effect"


def test_degenerate_text_is_called_so(world: PlantedWorld) -> None:
    evidence = check(world, Recipe.add(world.sae, {world.concepts["music"]: 6.0}))
    assert evidence.verdict == "only with degenerate text", evidence.summary


def test_suppression_is_judged_downwards(world: PlantedWorld) -> None:
    """The prompt's words are the concept's, so that there is something to lower."""
    feature = world.concepts["sea"]
    evidence = check(world, Recipe.add(world.sae, {feature: -1.0}), samples=8, max_new_tokens=40)
    assert evidence.targets[0].wanted == -1
    assert evidence.contrast("recipe").scores["firing:" + evidence.primary].below_zero
    raised = check(world, Recipe.add(world.sae, {feature: 1.0}), read={feature: -1.0})
    assert raised.verdict == "reversed"


def test_only_generated_tokens_count(world: PlantedWorld) -> None:
    """A prompt full of the concept adds nothing to the score of a continuation that lacks it."""
    model, sae, feature = world.model, world.sae, world.concepts["sea"]
    target = targets_of(Recipe.add(sae, {feature: 1.0}), sae)
    prompt, rest = model.encode("the wave saw the tide ."), model.encode("a dog found a boat .")[1:]
    text = Text("x", 0, 0, 0, (*prompt, *rest), len(prompt))
    readings, means = read_texts(model, sae, [feature], [text])
    sample = sample_of(readings[0], [feature], target, "recipe")
    assert len(sample.strengths[0]) == len(sample.tokens) == len(rest)
    assert sample.scores[f"firing:{target[0].name}"] == 1 / 6
    assert "".join(sample.tokens).split() == ["a", "dog", "found", "a", "boat", "."]
    all_tokens = trace(model, sae, [feature], [text.token_ids])[0][:, 0]
    assert (all_tokens > 0).sum() == 3
    norm = sae.W_dec[feature].norm()
    assert float(means["x"].mean[feature]) == pytest.approx(float(all_tokens[-6:].mean() * norm), rel=1e-5)


def test_a_text_without_generated_tokens_is_unscored(world: PlantedWorld) -> None:
    ids = tuple(world.model.encode("the cat"))
    target = targets_of(Recipe.add(world.sae, {3: 1.0}), world.sae)
    readings, _ = read_texts(world.model, world.sae, [3], [Text("x", 0, 0, 0, ids, len(ids))])
    sample = sample_of(readings[0], [3], target, "recipe")
    assert set(sample.scores.values()) == {None}
    assert stats.interval([sample.scores["log_likelihood"]], [0]).mean is None


def test_all_samples_are_kept_with_the_same_seeds_in_every_arm(world: PlantedWorld) -> None:
    evidence = check(world, Recipe.add(world.sae, {world.concepts["sea"]: 1.0}), controls=tuple(arms.CONTROLS))
    names = ["unsteered", "recipe", *arms.CONTROLS]
    assert [arm.name for arm in evidence.arms] == names
    for name in names:
        mine = [s for s in evidence.samples if s.arm == name]
        assert [(s.prompt, s.sample) for s in mine] == [(p, s) for p in range(6) for s in range(4)]
        assert evidence.arm(name).scores["log_likelihood"].n == 24


def test_several_features_are_judged_by_their_weighted_sum(world: PlantedWorld) -> None:
    first, second = world.concepts["sea"], world.concepts["fire"]
    evidence = check(world, Recipe.add(world.sae, {first: 1.0, second: 0.5}))
    assert [t.name for t in evidence.targets] == ["weighted sum", f"feature {first}", f"feature {second}"]
    assert evidence.targets[0].weights == (1.0, 0.5)
    assert evidence.verdict.startswith("works")
    sample = evidence.samples[0]
    total, one, two = (torch.tensor(row) for row in sample.strengths)
    torch.testing.assert_close(total, one + 0.5 * two, rtol=1e-4, atol=1e-4)


def test_from_zero_is_no_ratio(world: PlantedWorld) -> None:
    evidence = v.verify(
        world.model, world.sae, Recipe.add(world.sae, {world.concepts["sea"]: 1.0}), ["the cat saw"],
        samples=2, max_new_tokens=12, temperature=0.5, seed=1,
    )  # fmt: skip
    key = f"firing:{evidence.primary}"
    assert evidence.arm("unsteered").scores[key].mean == 0
    assert evidence.contrast("recipe").ratios[key] is None
    assert "from 0" in evidence.reasons[0]


def test_same_call_same_numbers_and_json_round_trip(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    first, again, other = (check(world, recipe, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert [s.text for s in first.samples] != [s.text for s in other.samples]
    assert Evidence.parse(json.loads(first.to_json())) == first


def test_many_at_once_equals_one_by_one(world: PlantedWorld) -> None:
    jobs = {c: Job(Recipe.add(world.sae, {f: 1.0})) for c, f in world.concepts.items()}
    sampling = Sampling(max_new_tokens=16)
    together = verify_many(world.model, world.sae, jobs, PROMPTS, samples=2, sampling=sampling, controls=["random"])
    for (question, job), found in zip(jobs.items(), together, strict=True):
        alone = check(world, job.recipe, samples=2, max_new_tokens=16, question=question)
        assert [s.token_ids for s in alone.samples] == [s.token_ids for s in found.samples]
        assert (alone.verdict, alone.reasons) == (found.verdict, found.reasons)


@dataclass(frozen=True)
class Counter:
    """A judge that counts a word, and has nothing to say about texts that start with an article."""

    word: str
    name: str = "word count"

    def __call__(self, texts: Sequence[Record]) -> list[float | None]:
        assert all(one.recipe is None for one in texts), "a judge must not see what wrote a text"
        return [
            None if one.text.split()[0] in ("the", "a", "every") else float(one.text.split().count(self.word))
            for one in texts
        ]


def test_a_judge_scores_every_arm_and_what_it_leaves_out_is_counted(world: PlantedWorld) -> None:
    evidence = check(world, Recipe.add(world.sae, {world.concepts["sea"]: 1.0}), judges=[Counter("wave")])
    assert [judge.name for judge in evidence.made.judges] == ["word count"]
    silent = 0
    for sample in evidence.samples:
        said, words = sample.scores["judge:word count"], sample.text.split()
        assert said == (None if words[0] in ("the", "a", "every") else words.count("wave"))
        silent += said is None
    arms_scores = [arm.scores["judge:word count"] for arm in evidence.arms]
    assert silent > 0
    assert sum(one.unscored for one in arms_scores) == silent
    assert all(one.n + one.unscored == 24 for one in arms_scores)
    assert evidence.contrast("recipe").scores["judge:word count"].above_zero


@pytest.mark.parametrize(
    ("said", "message"),
    [([1.0], "1 scores for 72 texts"), ([float("nan")] * 72, "finite"), ([float("inf")] * 72, "fin")],
)
def test_judges_that_answer_wrongly_are_refused(world: PlantedWorld, said: list[float], message: str) -> None:
    judge = type("Fixed", (), {"name": "fixed", "__call__": lambda self, texts: said})()
    with pytest.raises(InputError, match=message):
        check(world, Recipe.add(world.sae, {1: 1.0}), judges=[judge])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samples": 0}, "at least 1"),
        ({"controls": ("placebo",)}, "Valid: random, sign-flipped, matched-feature, shuffled, mean-difference, prompt"),
        ({"controls": ("random", "random")}, "distinct"),
        ({"judges": [Counter("wave"), Counter("tide")]}, "distinct names"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"read": {99999: 1.0}}, "out of range"),
        ({"read": {1: float("nan")}}, "finite"),
    ],
)
def test_bad_arguments_are_named(world: PlantedWorld, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(world, Recipe.add(world.sae, {1: 1.0}), **settings)


@pytest.mark.parametrize("prompts", [[], "the cat", ["the cat", "the cat"], [""]])
def test_bad_prompts_are_refused(world: PlantedWorld, prompts: Any) -> None:
    with pytest.raises(InputError):
        v.verify(world.model, world.sae, Recipe.add(world.sae, {1: 1.0}), prompts)


def test_a_vector_needs_features_to_read(world: PlantedWorld) -> None:
    recipe = Recipe.vector(world.directions["sea"], world.site, 3.0)
    with pytest.raises(InputError, match="nothing to verify"):
        check(world, recipe)
    assert check(world, recipe, read={world.concepts["sea"]: 1.0}).verdict.startswith("works")


def test_it_refuses_to_run_inside_an_edit(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    with world.model.edited(recipe):
        world.model.hf(torch.tensor([world.model.encode("the cat")]))
        with pytest.raises(UnsupportedError, match="being edited"):
            check(world, recipe)


def test_a_scope_that_selects_nothing_is_refused(world: PlantedWorld) -> None:
    recipe = Recipe.add(world.sae, {world.concepts["fire"]: 1.0}, scope=Scope(window=(500, None)))
    with pytest.raises(InputError, match="would change nothing"):
        v.verify(world.model, world.sae, recipe, ["the man"], samples=1, max_new_tokens=4)
