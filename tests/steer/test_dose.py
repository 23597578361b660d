"""The cost of a strength and the strength for a cost, against what is true of the planted world in closed form."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from trimtab.errors import InputError
from trimtab.evidence.verdict import MAX_COST, MAX_REPETITION
from trimtab.lm.decode import Row, decode
from trimtab.lm.load import Model
from trimtab.lm.residual import read
from trimtab.lm.sampling import stream_key
from trimtab.spec import Dose, Sampling, Scope
from trimtab.steer import strength
from trimtab.steer.dose import choose, measure_dose
from trimtab.steer.dose_curve import COLLAPSE_NATS, COLLAPSE_REPETITION, DoseCurve, DosePoint
from trimtab.steer.dose_texts import NEW_TOKENS, Texts
from trimtab.steer.grid import SweepSpec
from trimtab.steer.kl import PROMPT_TOKENS, kl_by_text
from trimtab.steer.neutral import NEUTRAL
from trimtab.steer.recipe import Recipe
from trimtab.steer.strength import Cost, costs, costs_of, crossing, factors_for_kl, scaled
from trimtab.steer.sweep import with_strengths
from trimtab.testing.models import ARCHITECTURES, tiny_model
from trimtab.testing.planted import PlantedWorld, planted_world


@pytest.fixture(scope="module")
def world() -> PlantedWorld:
    return planted_world(0)


@pytest.fixture(scope="module")
def texts(world: PlantedWorld) -> list[str]:
    return [*world.texts(None, 6), *world.texts("fire", 3)]


def planted_kl(world: PlantedWorld, vector: torch.Tensor, text: str, places: slice) -> list[float]:
    """KL at each token: adding a vector at the site adds `lm_head(vector)` to the logits, so no steering is needed."""
    ids = torch.tensor([world.model.encode(text)])
    with torch.no_grad():
        plain = world.model.hf(ids).logits[0, places].double()
        moved = plain + world.model.hf.lm_head(vector).double()
    p, q = plain.log_softmax(-1), moved.log_softmax(-1)
    return (q.exp() * (q - p)).sum(-1).tolist()


def test_the_cost_is_the_closed_form(world: PlantedWorld, texts: list[str]) -> None:
    row = world.sae.rows([world.concepts["fire"]])[0]
    factors = (-2.0, -0.5, 0.0, 1.0, 3.0)
    found = costs(world.model, Recipe.vector(row, world.site), factors, texts, places=99)
    for cost, factor in zip(found, factors, strict=True):
        each = [kl for text in texts for kl in planted_kl(world, factor * row, text, slice(1, strength.TEXT_TOKENS))]
        assert cost.factor == factor
        assert cost.kl == pytest.approx(sum(each) / len(each), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("budget", [0.05, 0.5, 1.5])
def test_the_chosen_strength_is_where_the_closed_form_meets_the_budget(
    world: PlantedWorld, texts: list[str], budget: float
) -> None:
    for row in (world.sae.rows([world.concepts["sea"]])[0], -world.model.hf.lm_head.weight[7].detach()):
        chosen = choose(world.model, Recipe.vector(row, world.site, 7.0), Dose.of(f"kl={budget}"), prompts=texts)
        vector = 7.0 * chosen.factor * row
        each = []
        for text in texts:
            all_of_it = planted_kl(world, vector, text, slice(1, strength.TEXT_TOKENS))
            each += [all_of_it[i] for i in torch.linspace(0, len(all_of_it) - 1, strength.PLACES).round().int()]
        assert sum(each) / len(each) == pytest.approx(budget, rel=0.03)  # read off a line between two strengths
        assert chosen.recipe == Recipe.vector(row, world.site, 7.0 * chosen.factor)
        assert chosen.kl == budget


def test_only_tokens_that_the_edit_acts_on_count(world: PlantedWorld, texts: list[str]) -> None:
    row = world.sae.rows([world.concepts["fire"]])[0]
    spans = {
        Scope(generated=False): slice(1, PROMPT_TOKENS),
        Scope(prompt=False): slice(PROMPT_TOKENS, None),
        Scope(window=(3, 6)): slice(3, 6),
        Scope(bos=True): slice(0, None),
    }
    ids = [world.model.encode(text) for text in texts]
    recipes = [Recipe.vector(row, world.site, scope=scope) for scope in spans]
    sums, counts = kl_by_text(world.model, recipes, ids, 99)
    for place, span in enumerate(spans.values()):
        for number, text in enumerate(texts):
            each = planted_kl(world, row, text, span)
            assert int(counts[place, number]) == len(each)
            assert float(sums[place, number]) == pytest.approx(sum(each), rel=1e-4)


def test_a_row_costs_the_same_in_any_company(tiny: Model, make_sae) -> None:  # type: ignore[no-untyped-def]
    sae = make_sae()
    company = [
        Recipe.add(sae, {3: 1.0}), Recipe.clamp(sae, {5: 2.0}), Recipe.min(sae, {6: 1.0}), Recipe.ablate(sae, [7]),
        Recipe.scale(sae, {8: 3.0}), Recipe.max(sae, {9: 0.1}), Recipe.vector(sae.rows([1])[0], 1, 0.3, unit="norm"),
        Recipe.project(sae.rows([2])[0], 1),
    ]  # fmt: skip
    texts = ["The cat sat on the mat.", "A longer text, about nothing at all, that goes on."]
    together = costs_of(tiny, company, texts)
    for one, cost in zip(company, together, strict=True):
        with torch.no_grad():
            total, tokens = 0.0, 0
            for text in texts:
                ids = torch.tensor([tiny.encode(text)[: strength.TEXT_TOKENS]])
                p = tiny.hf(ids).logits[0].double().log_softmax(-1)
                with tiny.edited(one):
                    q = tiny.hf(ids).logits[0].double().log_softmax(-1)
                looked = torch.linspace(1, ids.shape[1] - 1, strength.PLACES).round().long()
                total += float((q.exp() * (q - p)).sum(-1)[looked].sum())
                tokens += strength.PLACES
        assert cost.kl == pytest.approx(total / tokens, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_that_share_the_blocks_before_their_edits_cost_what_they_cost_alone(architecture: str) -> None:
    model = tiny_model(architecture)
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    recipes = [Recipe.vector(vector, site, 0.4, unit="norm") for site in (1, 0, -1)]
    text = "The cat sat on the mat, and so did the dog."
    ids = torch.tensor([model.encode(text)[: strength.TEXT_TOKENS]])
    for several in (recipes, recipes[:1]):
        found = costs_of(model, several, [text], places=99)
        for one, cost in zip(several, found, strict=True):
            p = model.hf(ids).logits[0].double().log_softmax(-1)
            with model.edited(one):
                q = model.hf(ids).logits[0].double().log_softmax(-1)
            assert cost.kl == pytest.approx(float((q.exp() * (q - p)).sum(-1)[1:].mean()), rel=2e-3)


def test_a_window_beyond_the_rough_look_is_measured(world: PlantedWorld) -> None:
    texts = [" ".join(world.texts(None, 3, seed)) for seed in range(9)]
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0}, scope=Scope(window=(30, None)))
    cost = factors_for_kl(world.model, recipe, [0.2], texts)[0]
    assert costs(world.model, recipe, [cost.factor], texts)[0].kl == pytest.approx(0.2, rel=0.03)


def test_every_edit_gets_stronger_with_its_factor(tiny: Model, make_sae) -> None:  # type: ignore[no-untyped-def]
    sae = make_sae()
    row = sae.rows([1])[0]
    cases = {
        Recipe.add(sae, {3: 1.0, 4: -2.0}): Recipe.add(sae, {3: 2.0, 4: -4.0}),
        Recipe.clamp(sae, {3: 1.5}): Recipe.clamp(sae, {3: 3.0}),
        Recipe.min(sae, {3: 1.5}): Recipe.min(sae, {3: 3.0}),
        Recipe.max(sae, {3: 1.5}): Recipe.max(sae, {3: 0.75}),
        Recipe.scale(sae, {3: 0.75}): Recipe.scale(sae, {3: 0.5}),
        Recipe.vector(row, 1, 0.25, unit="norm"): Recipe.vector(row, 1, 0.5, unit="norm"),
        Recipe.project(row, 1, 2.0): Recipe.project(row, 1, 4.0),
    }
    for recipe, doubled in cases.items():
        assert scaled(recipe, 2) == doubled
        assert scaled(recipe, 1) == recipe


def test_what_has_no_strength_says_so(tiny: Model, make_sae) -> None:  # type: ignore[no-untyped-def]
    sae = make_sae()
    with pytest.raises(InputError, match=r"ablate sets a feature to 0, which is done or not done.* use scale"):
        choose(tiny, Recipe.ablate(sae, [3]), "kl=0.1")
    with pytest.raises(InputError, match="projecting to 0 removes a direction"):
        choose(tiny, Recipe.project(sae.rows([1])[0], 1), "kl=0.1")
    with pytest.raises(InputError, match="all 0"):
        choose(tiny, Recipe.add(sae, {3: 0.0}), "kl=0.1")
    with pytest.raises(InputError, match="above 0"):
        scaled(Recipe.max(sae, {3: 1.0}), -1)


def test_a_budget_out_of_reach_says_what_can_be_had(world: PlantedWorld, texts: list[str]) -> None:
    feature = world.concepts["fire"]
    with pytest.raises(InputError, match="No strength of this recipe costs 5 nats per token"):
        factors_for_kl(world.model, Recipe.max(world.sae, {feature: 1.0}), [5.0], texts)
    with pytest.raises(InputError, match=r"costs 0\.5 nats per token: at .* costs 0\.0"):
        choose(world.model, Recipe.add(world.sae, {feature: -1.0}), "kl=0.5", prompts=texts)  # rare words, made rarer
    burning = [" ".join(world.texts("fire", 3, seed)) for seed in range(8)]  # the feature fires in all of them
    with pytest.raises(InputError, match=r"costs .*1e-05 nats per token"):
        factors_for_kl(world.model, Recipe.clamp(world.sae, {feature: 1.0}), [1e-5], burning)
    with pytest.raises(InputError, match="scope selects none of the tokens of the texts"):
        costs(world.model, Recipe.add(world.sae, {feature: 1.0}, scope=Scope(window=(400, None))), [1.0], texts)


def test_a_sweep_without_strengths_spans_weak_to_strong(world: PlantedWorld) -> None:
    features = (world.concepts["fire"], world.concepts["sea"])
    spec = with_strengths(
        world.model, world.sae, SweepSpec(prompts=("the cat",), features=features, ops=("add", "min"))
    )
    assert len(spec.strengths) == 5
    ratios = [b / a for a, b in pairwise(spec.strengths)]
    assert max(ratios) / min(ratios) < 1.2
    first, last = (
        [costs(world.model, Recipe.add(world.sae, {f: s}), [1.0])[0].kl for f in features]
        for s in (spec.strengths[0], spec.strengths[-1])
    )
    assert min(first) < 0.15
    assert max(last) > 1.2
    with pytest.raises(InputError, match="give the strengths"):
        with_strengths(world.model, world.sae, spec.model_copy(update={"ops": ("scale", "add")}))


def test_the_first_crossing_is_taken() -> None:
    bumpy = [Cost(f, kl, 0.0) for f, kl in ((1, 0.1), (2, 0.6), (4, 0.2), (8, 0.9))]
    assert 1 < (crossing(bumpy, 0.5) or 0) < 2
    assert 4 < (crossing(bumpy, 0.8) or 0) < 8
    assert crossing(bumpy, 1.0) is None


@pytest.mark.parametrize("given", ["0.5", "kl", "kl=", "kl=x", "kl=0", "kl=-1", "ppl=1", "auto=1", "loud=3", "kl=nan"])
def test_a_dose_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(InputError):
        Dose.of(given)


def test_doses_as_people_write_them() -> None:
    assert Dose.of("kl=0.5") == Dose(measure="kl", budget=0.5)
    assert Dose.of(" PPL=1.2 ") == Dose(measure="ppl", budget=1.2)
    assert str(Dose.of("auto")) == "auto"
    assert str(Dose.of("kl=0.50")) == "kl=0.5"


def test_there_are_enough_neutral_texts_and_none_is_short() -> None:
    assert len(set(NEUTRAL)) >= 40
    assert all(len(text.split()) >= 50 for text in NEUTRAL)


def curve_of(*points: tuple[float, float, float], plain: float = 0.05) -> DoseCurve:
    """A curve by (factor, perplexity ratio, repetition)."""
    made = tuple(DosePoint(f, abs(f), 0.0, ppl, rep) for f, ppl, rep in points)
    vector = Recipe.vector(torch.ones(4), 0)
    return DoseCurve(vector, made, Texts(3.0, plain, None))


def test_safe_until_the_first_that_is_not_and_collapsed_by_the_verdicts_rule() -> None:
    curve = curve_of((-2, 3.0, 0.0), (-1, 1.7, 0.0), (1, 1.1, 0.1), (2, 1.6, 0.14), (3, 0.9, 0.6), (4, 1.0, 0.05))
    assert curve.safe_range == (0.0, 2.0)  # -1 is over in perplexity; 4 lies behind a collapse
    assert curve.collapse == (-2.0, 3.0)
    assert [curve.state(point) for point in curve.points] == [
        "collapsed",
        "strained",
        "safe",
        "safe",
        "collapsed",
        "strained",
    ]
    assert (COLLAPSE_NATS, COLLAPSE_REPETITION) == (MAX_COST, MAX_REPETITION)


def test_texts_are_those_that_generate_writes_and_their_likelihood_is_the_models_own(world: PlantedWorld) -> None:
    texts = world.texts(None, 4)
    feature = world.concepts["sea"]
    recipe = Recipe.add(world.sae, {feature: 2.0})
    curve = measure_dose(world.model, recipe, [-1.0, 1.0], texts, sae=world.sae, texts=3, seed=2)
    nats, response, count = 0.0, 0.0, 0
    for text in texts[:3]:
        opening = world.model.decode(world.model.encode(text)[:PROMPT_TOKENS])
        ids = torch.tensor([world.model.encode(text)[:PROMPT_TOKENS]])
        assert ids[0].tolist() == world.model.encode(opening)
        row = Row(tuple(ids[0].tolist()), stream_key(2, text, 0), Sampling(max_new_tokens=NEW_TOKENS), recipe)
        (done,) = decode(world.model, [row], batch_size=1, stops=world.model.eos_ids)
        whole = torch.tensor([[*row.prompt, *done.tokens]])
        said = world.model.hf(whole).logits[0].double().log_softmax(-1)
        new = range(len(row.prompt), whole.shape[1])
        nats -= sum(float(said[i - 1, whole[0, i]]) for i in new)
        f = world.sae.encode(read(world.model, whole, [world.site])[world.site])[0, new[0] :, feature]
        response += float(f.sum() * world.sae.W_dec[feature].norm())
        count += len(new)
    point, plain = curve.at(1.0), curve.unsteered
    assert plain is not None
    assert point.perplexity == pytest.approx(math.exp(nats / count - plain.nats), rel=1e-3)
    assert point.response == pytest.approx(response / count, rel=1e-3)
    assert plain.response is not None
    assert point.response > 2 * plain.response


def test_ppl_is_met_by_the_texts_and_auto_is_the_end_of_the_safe_range(world: PlantedWorld) -> None:
    texts = [*world.texts(None, 12), *world.texts("fire", 6)]
    recipe = Recipe.add(world.sae, {world.concepts["sea"]: 1.0})
    chosen = choose(world.model, recipe, "ppl=1.5", texts, sae=world.sae)
    assert chosen.curve is not None
    again = measure_dose(world.model, recipe, [chosen.factor], texts, texts=len(texts))
    assert again.points[0].perplexity == pytest.approx(1.5, rel=0.15)
    auto = choose(world.model, recipe, "auto", texts, sae=world.sae)
    assert auto.curve is not None
    assert auto.factor == auto.curve.safe_range[1]
    assert auto.kl == auto.curve.at(auto.factor).kl
    assert f"{{{world.concepts['sea']}: {auto.factor:g}}}" in auto.said
    assert "stays safe up to" in auto.said
