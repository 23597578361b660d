"""Compiled edits against naive ones that encode and decode in full, on SAEs that reconstruct badly."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trimtab.errors import InputError, MismatchError, UnsupportedError
from trimtab.lm.load import Model
from trimtab.sae.sae import SAE
from trimtab.spec import Scope
from trimtab.steer.recipe import Recipe

KINDS = [
    ("standard", "none"),
    ("topk", "none"),
    ("jumprelu", "none"),
    ("gated", "none"),
    ("jumprelu", "layer_norm"),
    ("topk", "constant_norm_rescale"),
]
FEATURES = [3, 17, 5, 39]
VALUES = torch.tensor([0.7, 4.0, -2.0, 0.0])


def change(recipe: Recipe, model: Model, h: Tensor) -> Tensor:
    """Sum of all changes that the recipe makes, whatever their scope; it must have one site."""
    edits = recipe.compile(model)
    assert len({edit.site for edit in edits}) == 1
    return torch.stack([edit.delta(h) for edit in edits]).sum(0)


def naive(sae: SAE, h: Tensor, new: Callable[[Tensor], Tensor]) -> Tensor:
    """decode(f with the chosen features replaced) + (h - decode(f)) - h, as the literature states it."""
    f = sae.encode(h)
    edited = f.clone()
    edited[..., FEATURES] = new(f[..., FEATURES])
    error = h - sae.decode(f, sae.scale(h))
    return sae.decode(edited, sae.scale(h)) + error - h


OPERATIONS: dict[str, tuple[Callable[[SAE], Recipe], Callable[[Tensor], Tensor]]] = {
    "clamp": (lambda sae: Recipe.clamp(sae, given(), unit="raw"), lambda f: VALUES.expand_as(f)),
    "scale": (lambda sae: Recipe.scale(sae, given()), lambda f: f * VALUES),
    "ablate": (lambda sae: Recipe.ablate(sae, FEATURES), torch.zeros_like),
    "min": (lambda sae: Recipe.min(sae, given(), unit="raw"), lambda f: torch.maximum(f, VALUES)),
    "max": (lambda sae: Recipe.max(sae, given(), unit="raw"), lambda f: torch.minimum(f, VALUES)),
    "range": (
        lambda sae: Recipe.min(sae, every(1.0), "raw") + Recipe.max(sae, every(2.0), "raw"),
        lambda f: f.clamp(1.0, 2.0),
    ),
}  # fmt: skip


def every(value: float) -> dict[int, float]:
    return dict.fromkeys(FEATURES, value)


def given() -> dict[int, float]:
    return dict(zip(FEATURES, VALUES.tolist(), strict=True))


@pytest.mark.parametrize(("architecture", "normalisation"), KINDS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_latent_operations_equal_the_naive_ones(
    operation: str, architecture: str, normalisation: str, make_sae, tiny, h
) -> None:
    sae = make_sae(architecture, normalisation=normalisation)
    f = sae.encode(h)
    assert 0.02 < (f[..., FEATURES] > 0).float().mean() < 0.98
    assert (h - sae.reconstruct(h)).norm() > 0.5 * h.norm()
    recipe, new = OPERATIONS[operation]
    wanted = naive(sae, h, new)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(change(recipe(sae), tiny, h), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_clamping_to_the_current_value_changes_nothing(architecture: str, make_sae, tiny, h) -> None:
    sae = make_sae(architecture)
    for row, token in ((0, 0), (3, 5)):
        here = h[row : row + 1, token : token + 1]
        f = sae.latents(FEATURES).encode(here)[0, 0]
        now = dict(zip(FEATURES, f.tolist(), strict=True))
        assert torch.equal(change(Recipe.clamp(sae, now, unit="raw"), tiny, here), torch.zeros_like(here))


def test_clamping_elsewhere_moves_by_exactly_the_difference_along_the_row(make_sae, tiny, h) -> None:
    sae = make_sae()
    f = sae.encode(h)[..., [17]]
    torch.testing.assert_close(change(Recipe.clamp(sae, {17: 9.0}, "raw"), tiny, h), (9.0 - f) * sae.W_dec[17])


def test_raw_strength_is_a_length_along_the_unit_row(make_sae, tiny, h) -> None:
    sae = make_sae()
    moved = change(Recipe.add(sae, {17: 10.0}, unit="raw"), tiny, h)
    torch.testing.assert_close(moved, (10 * sae.W_dec[17] / sae.W_dec[17].norm()).expand_as(h))
    torch.testing.assert_close(moved.norm(dim=-1), torch.full((4, 6), 10.0))
    torch.testing.assert_close(change(Recipe.add(sae, {17: -10.0}, unit="raw"), tiny, h), -moved)


def test_max_act_and_norm_units(make_sae, tiny, h) -> None:
    sae = make_sae()
    both = change(Recipe.add(sae, {17: 2.0, 3: -1.0}), tiny, h)
    wanted = 2 * sae.max_act[17] * sae.W_dec[17] - sae.max_act[3] * sae.W_dec[3]
    torch.testing.assert_close(both, wanted.expand_as(h))
    relative = change(Recipe.add(sae, {17: 0.25}, unit="norm"), tiny, h)
    torch.testing.assert_close(relative.norm(dim=-1), 0.25 * h.norm(dim=-1))
    torch.testing.assert_close(relative[2, 1], 0.25 * h[2, 1].norm() * sae.W_dec[17] / sae.W_dec[17].norm())
    held = change(Recipe.clamp(sae, {17: 1.5}), tiny, h)
    torch.testing.assert_close(held, (1.5 * sae.max_act[17] - sae.encode(h)[..., [17]]) * sae.W_dec[17])


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_max_act_of_an_sae_that_rescales_its_input_is_in_the_units_of_each_position(
    normalisation: str, make_sae, tiny, h
) -> None:
    sae = make_sae(normalisation=normalisation)
    f = sae.encode(h)
    more = f.clone()
    more[..., 17] += 2 * sae.max_act[17]
    wanted = sae.decode(more, sae.scale(h)) - sae.decode(f, sae.scale(h))
    torch.testing.assert_close(change(Recipe.add(sae, {17: 2.0}), tiny, h), wanted, rtol=1e-4, atol=1e-4)
    joined = Recipe.add(sae, {17: 2.0}) + Recipe.clamp(sae, {17: 0.5}, "raw")
    torch.testing.assert_close(
        change(joined, tiny, h), wanted + naive_one(sae, h, 17, 0.5), rtol=1e-4, atol=1e-4
    )  # fmt: skip


def naive_one(sae: SAE, h: Tensor, index: int, value: float) -> Tensor:
    f = sae.encode(h)
    edited = f.clone()
    edited[..., index] = value
    return sae.decode(edited, sae.scale(h)) - sae.decode(f, sae.scale(h))


def test_vectors_and_projections(make_sae, tiny, h) -> None:
    a, b = torch.randn(2, 16)
    torch.testing.assert_close(change(Recipe.vector(a, 1, 2.5), tiny, h), (2.5 * a).expand_as(h))
    relative = change(Recipe.vector(a, 1, 0.5, unit="norm"), tiny, h)
    torch.testing.assert_close(relative, 0.5 * h.norm(dim=-1, keepdim=True) * a / a.norm())
    both = Recipe.project(a, 1) + Recipe.project(b, 1, target=3.0)
    moved = h + change(both, tiny, h)
    torch.testing.assert_close(moved @ (a / a.norm()), torch.zeros(4, 6), rtol=0, atol=1e-4)
    torch.testing.assert_close(moved @ (b / b.norm()), torch.full((4, 6), 3.0), rtol=1e-4, atol=1e-4)


def test_edits_at_one_site_are_summed(make_sae, tiny, h) -> None:
    sae, other = make_sae(), make_sae("gated", seed=5)
    parts = [
        Recipe.add(sae, {1: 2.0}),
        Recipe.add(sae, {2: 0.3}, unit="norm"),
        Recipe.clamp(sae, {17: 2.0}),
        Recipe.ablate(other, [4, 9]),
        Recipe.vector(torch.randn(16), 1, scope=Scope(generated=False)),
        Recipe.project(torch.randn(16), 1),
    ]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + part
    assert len(joined.compile(tiny)) == 2  # one for each scope
    wanted = torch.stack([change(part, tiny, h) for part in parts]).sum(0)
    torch.testing.assert_close(change(joined, tiny, h), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["topk", "jumprelu"])
def test_each_row_of_a_mixed_batch_gets_what_it_gets_alone(architecture: str, make_sae, tiny, h) -> None:
    sae, other = make_sae(architecture), make_sae("standard", seed=3)
    recipes = [
        Recipe.clamp(sae, {3: 2.0, 17: 0.5}) + Recipe.add(sae, {1: 1.0}) + Recipe.project(torch.randn(16), 1),
        Recipe.scale(sae, {17: 3.0, 8: 0.0}) + Recipe.min(other, {0: 4.0}),
        Recipe.vector(torch.randn(16), 1) + Recipe.project(torch.randn(16), 1) + Recipe.project(torch.randn(16), 1),
        Recipe.add(sae, {5: 0.2}, unit="norm"),
    ]
    (edit,) = Recipe.compile_rows(recipes, tiny)
    assert edit.rows.tolist() == [0, 1, 2, 3]
    together = edit.delta(h)
    for row, recipe in enumerate(recipes):
        alone = change(recipe, tiny, h[row : row + 1])
        assert alone.abs().max() > 0.1
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


def test_rows_are_grouped_by_site_and_scope(make_sae, tiny) -> None:
    first, last = make_sae(layer=0), make_sae(layer=2, seed=1)
    early = Scope(generated=False)
    recipes = [
        Recipe.add(first, {1: 1.0}) + Recipe.clamp(last, {2: 1.0}),
        None,
        Recipe.ablate(last, [3]),
        Recipe.add(last, {4: 1.0}, scope=early),
        Recipe.add(first, {5: 0.0}),
    ]
    found = {(edit.site.layer, edit.scope): edit.rows.tolist() for edit in Recipe.compile_rows(recipes, tiny)}
    assert found == {(0, Scope()): [0], (2, Scope()): [0, 2], (2, early): [3]}
    assert Recipe.compile_rows([None, None], tiny) == []


def test_strength_0_compiles_to_nothing(make_sae, tiny) -> None:
    sae = make_sae()
    for unit in ("raw", "max_act", "norm"):
        assert Recipe.add(sae, {1: 0.0, 2: 0.0}, unit=unit).compile(tiny) == []
    assert (0 * Recipe.vector(torch.ones(16), 1)).compile(tiny) == []
    assert Recipe().compile(tiny) == []
    assert len(Recipe.clamp(sae, {1: 0.0}).compile(tiny)) == 1


def test_the_residual_moves_by_exactly_the_edit_at_each_site(make_sae, tiny) -> None:
    from trimtab.lm.residual import read

    first, last = make_sae(layer=0), make_sae(layer=2, seed=1)
    ids = torch.tensor([[1, 50, 60, 70]])
    with tiny.edited(Recipe.add(first, {1: 2.0}, "raw")):
        before = read(tiny, ids, [0, 2])
    with tiny.edited(Recipe.add(first, {1: 2.0}, "raw") + Recipe.clamp(last, {2: 30.0}, "raw")):
        after = read(tiny, ids, [0, 2])
    plain = read(tiny, ids, [0, 2])
    early, late = first.site, last.site
    unit = first.W_dec[1] / first.W_dec[1].norm()
    torch.testing.assert_close(after[early][:, 1:], plain[early][:, 1:] + 2 * unit, rtol=1e-5, atol=1e-5)
    wanted = (30.0 - last.encode(before[late])[..., [2]]) * last.W_dec[2]
    torch.testing.assert_close(after[late][:, 1:], (before[late] + wanted)[:, 1:], rtol=1e-4, atol=1e-4)
    for site in (early, late):
        assert torch.equal(after[site][:, 0], plain[site][:, 0])  # BOS is left alone


def test_strength_0_gives_the_very_same_logits(make_sae, tiny) -> None:
    ids = torch.tensor([[1, 50, 60, 70]])
    plain = tiny.hf(ids).logits
    with tiny.edited(Recipe.add(make_sae(), {1: 0.0}, "raw")):
        assert torch.equal(tiny.hf(ids).logits, plain)
    with tiny.edited(Recipe.add(make_sae(), {1: 5.0}, "raw")):
        assert not torch.allclose(tiny.hf(ids).logits, plain)


def test_compiled_changes_are_pure(make_sae, tiny, h) -> None:
    sae = make_sae()
    recipe = Recipe.clamp(sae, {3: 1.0}) + Recipe.add(sae, {4: 1.0}) + Recipe.project(torch.randn(16), 1)
    weights = {name: value.clone() for name, value in vars(sae).items() if isinstance(value, Tensor)}
    digest, before = recipe.digest, h.clone()
    (edit,) = recipe.compile(tiny)
    first = edit.delta(h).clone()
    edit.delta(torch.randn_like(h)).mul_(0)
    assert torch.equal(edit.delta(h), first)
    assert torch.equal(h, before)
    assert all(torch.equal(getattr(sae, name), value) for name, value in weights.items())
    assert Recipe(recipe.edits).digest == digest
    recomputed = [type(edit)(edit.spec, edit.tensors, edit.latents).digest for edit in recipe.edits]
    assert recomputed == [edit.digest for edit in recipe.edits]


def test_writing_into_a_change_does_not_reach_the_recipe(make_sae, tiny, h) -> None:
    recipe = Recipe.vector(torch.ones(16), 1)
    (edit,) = Recipe.compile_rows([recipe], tiny)
    edit.delta(h[:1]).contiguous().zero_()
    for edit in (*recipe.compile(tiny), *Recipe.compile_rows([recipe], tiny)):
        assert torch.equal(edit.delta(h[:1]), torch.ones(1, 6, 16))


def test_equal_recipes_share_what_was_computed(make_sae) -> None:
    from trimtab.steer.compile import lowered

    sae = make_sae()
    one, same, other = (Recipe.clamp(sae, {3: value}) for value in (1.0, 1.0, 2.0))
    assert lowered(one, "cpu") is lowered(same, "cpu")
    assert lowered(one, "cpu") is not lowered(other, "cpu")


def test_wrong_models_are_refused(make_sae, tiny) -> None:
    with pytest.raises(MismatchError, match=r"width 8.*width 16"):
        Recipe.add(make_sae(width=8), {1: 1.0}).compile(tiny)
    with pytest.raises(MismatchError, match="trained on 'gpt2'"):
        Recipe.compile_rows([None, Recipe.add(make_sae(model_name="gpt2"), {1: 1.0})], tiny)
    with pytest.raises(MismatchError, match="3 layers"):
        Recipe.add(make_sae(layer=3), {1: 1.0}).compile(tiny)
    with pytest.raises(MismatchError, match=r"vector.*width 8.*width 16"):
        Recipe.vector(torch.ones(8), 1).compile(tiny)
    with pytest.raises(InputError, match="no site"):
        Recipe.vector(torch.ones(16), 7).compile(tiny)


def test_a_recipe_bound_to_a_model_refuses_any_other(make_sae, tiny) -> None:
    from trimtab.testing.models import tiny_model

    bound = Recipe.vector(torch.ones(16), 1).made_for(tiny)
    assert len(bound.compile(tiny)) == 1
    other = tiny_model("gemma3_text", seed=1)
    with pytest.raises(MismatchError, match=tiny.fingerprint):
        bound.compile(other)
    with pytest.raises(MismatchError, match="different models"):
        bound + Recipe.vector(torch.ones(16), 1).made_for(other)
    assert (Recipe.vector(torch.ones(16), 1) + bound).about.model_fingerprint == tiny.fingerprint


def test_saes_that_need_the_whole_sequence_take_plain_directions_only(make_sae, tiny, h) -> None:
    sae = make_sae("standard", normalisation="sequence")
    for build in (lambda: Recipe.clamp(sae, {1: 1.0}, "raw"), lambda: Recipe.add(sae, {1: 1.0})):
        with pytest.raises(UnsupportedError, match="whole sequences"):
            build()
    torch.testing.assert_close(change(Recipe.add(sae, {1: 2.0}, "raw"), tiny, h).norm(dim=-1), torch.full((4, 6), 2.0))
