"""The invariants that every part of trimtab rests on, by their numbers in docs/design.md (here those of lm)."""

from __future__ import annotations

import copy

import pytest
import torch

from trimtab.errors import InputError
from trimtab.lm.residual import SiteEdit, edit, read
from trimtab.spec import Scope, Site
from trimtab.testing.models import ARCHITECTURES, tiny_model

SITE = Site(layer=1)


def random_vectors(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def shift(vectors, rows=None, *, site=SITE, scope=None):
    """Row i of `rows` gets vector i; without rows, all get the first one."""
    index = None if rows is None else torch.tensor(rows)
    moved = vectors[:1] if rows is None else vectors
    return SiteEdit(site, scope or Scope(), index, lambda h: moved[:, None].expand_as(h))


def hooks(model):
    """Every hook on every module; transformers' own, placed once when hidden states are first asked for, included."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called")
    return {(name, kind): tuple(getattr(module, kind)) for name, module in model.hf.named_modules() for kind in kinds}


def greedy(model, ids, mask, new=6, **options):
    with torch.no_grad():
        return model.hf.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=False,
            suppress_tokens=[model.bos_id],  # a BOS that the model writes itself would be left alone
            **options,
        )


@pytest.fixture(params=["gemma3_text", "gpt2", "gpt_neo"])
def model(request):
    return tiny_model(request.param)


def texts(model, *given):
    return model.pad([model.encode(text) for text in given])


# 1. Strength 0, or a steerable model with no recipe, gives bit-identical logits to the plain model.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_1_a_zero_edit_is_bit_identical(model, dtype):
    model.hf.to(dtype)
    ids, mask = texts(model, "abcdef", "ab")
    plain = model.hf(ids, attention_mask=mask).logits
    zero = shift(torch.zeros(1, model.d_model))
    with edit(model, [zero]) as receipt:
        assert torch.equal(model.hf(ids, attention_mask=mask).logits, plain)
    assert receipt.steps[0].ratio == [0.0, 0.0]
    with edit(model, []):
        assert torch.equal(model.hf(ids, attention_mask=mask).logits, plain)


# 2. After the context exits, even by an exception or half-registered, no hook remains and logits are restored exactly.


def test_2_nothing_remains_after_the_context(model):
    ids, mask = texts(model, "abcdef")
    plain = model.hf(ids, attention_mask=mask).logits
    before = hooks(model)
    vectors = random_vectors(1, model.d_model)
    changes = [shift(vectors, site=Site(layer=layer)) for layer in (-1, 0, 2)]
    with edit(model, changes):
        assert hooks(model) != before
        assert not torch.equal(model.hf(ids, attention_mask=mask).logits, plain)
    assert hooks(model) == before
    assert torch.equal(model.hf(ids, attention_mask=mask).logits, plain)


def test_2_nothing_remains_after_an_exception(model):
    ids, mask = texts(model, "abcdef")
    plain = model.hf(ids, attention_mask=mask).logits
    before = hooks(model)

    def broken(h):
        raise KeyError("broken edit")

    with pytest.raises(KeyError, match="broken edit"), edit(model, [SiteEdit(SITE, Scope(), None, broken)]):
        model.hf(ids, attention_mask=mask)
    assert hooks(model) == before
    with pytest.raises(KeyError, match="broken reader"), edit(model, [shift(random_vectors(1, model.d_model))]):
        raise KeyError("broken reader")
    assert hooks(model) == before
    assert torch.equal(model.hf(ids, attention_mask=mask).logits, plain)


@pytest.mark.parametrize("works", [0, 1, 2])
def test_2_nothing_remains_when_a_hook_cannot_be_placed(model, works, monkeypatch):
    before = hooks(model)
    placed = []
    real = torch.nn.Module.register_forward_hook

    def limited(self, *args, **kwargs):
        if len(placed) == works:
            raise RuntimeError("no more hooks")
        placed.append(self)
        return real(self, *args, **kwargs)

    vectors = random_vectors(1, model.d_model)
    changes = [shift(vectors, site=Site(layer=layer)) for layer in (-1, 0, 1, 2)]
    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", limited)
    with pytest.raises(RuntimeError, match="no more hooks"), edit(model, changes):
        pytest.fail("the context was entered")
    placed.clear()
    with pytest.raises(RuntimeError, match="no more hooks"):
        read(model, torch.tensor([[1, 2]]), [-1, 0, 1, 2])
    assert len(placed) == works
    assert hooks(model) == before


def test_2_an_unknown_site_among_good_ones_leaves_nothing(model):
    before = hooks(model)
    vectors = random_vectors(1, model.d_model)
    with (
        pytest.raises(InputError, match=r"model.layers.9.output"),
        edit(model, [shift(vectors), shift(vectors, site=Site(layer=9))]),
    ):
        pytest.fail("the context was entered")
    assert hooks(model) == before


# 3. With and without the KV cache the same positions are edited, one-token prompts included; every generated token is
#    steered.


@pytest.mark.parametrize("scope", [Scope(bos=True), Scope(generated=False, bos=True), Scope(prompt=False), Scope()])
@pytest.mark.parametrize("prompt", ["", "abcd"])
def test_3_the_cache_makes_no_difference(model, prompt, scope):
    ids, mask = texts(model, prompt)
    assert ids.shape[1] == len(prompt) + 1
    change = shift(random_vectors(1, model.d_model), scope=scope)
    with edit(model, [change]) as cached:
        with_cache = greedy(model, ids, mask)
    with edit(model, [change]) as uncached:
        without = greedy(model, ids, mask, use_cache=False)
    assert torch.equal(with_cache, without)
    # Without a cache each pass edits all positions so far again; the last pass shows them all.
    total = [position for step in cached.steps for position in step.positions[0]]
    assert total == uncached.steps[-1].positions[0]
    first = 0 if scope.bos else 1
    generated = list(range(len(prompt) + 1, len(prompt) + 6))
    assert total == (list(range(first, len(prompt) + 1)) if scope.prompt else []) + (
        generated if scope.generated else []
    )


def test_3_every_generated_token_is_steered(model):
    """Each token follows from logits that a plain run, given the same tokens, would only give with the edit."""
    ids, mask = texts(model, "abcd")
    change = shift(3 * random_vectors(1, model.d_model), scope=Scope(prompt=False))
    with edit(model, [change]):
        tokens = greedy(model, ids, mask, new=8)
    for stop in range(ids.shape[1] + 1, tokens.shape[1]):
        with edit(model, [change]):
            cache = model.hf(ids).past_key_values
            steered = model.hf(tokens[:, ids.shape[1] : stop], past_key_values=cache).logits[:, -1]
        assert int(steered.argmax()) == int(tokens[0, stop])


# 4. A row in a mixed, padded batch equals the same row alone, whatever its neighbours' edits are (tolerance 1e-5).


def test_4_a_row_in_a_mixed_batch_equals_the_row_alone(model):
    given = ["abcdefgh", "xyz", "q", "hello"]
    ids, mask = texts(model, *given)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    vectors = random_vectors(4, model.d_model)
    scopes = [Scope(), Scope(window=(1, 3)), Scope(bos=True)]
    mixed = [shift(vectors[row : row + 1], [row], scope=scope) for row, scope in enumerate(scopes)]
    with edit(model, mixed, batch=4) as receipt:
        together = model.hf(ids, attention_mask=mask, position_ids=positions).logits
        tokens = greedy(model, ids, mask)
    for row, text in enumerate(given):
        one, one_mask = texts(model, text)
        here = [shift(vectors[row : row + 1], scope=scopes[row])] if row < 3 else []
        with edit(model, here) as alone:
            logits = model.hf(one).logits
            continued = greedy(model, one, one_mask)
        torch.testing.assert_close(together[row, -one.shape[1] :], logits[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(tokens[row, ids.shape[1] :], continued[0, one.shape[1] :])
        if here:
            assert [s.positions[row] for s in receipt.steps if s.positions[row]] == [
                s.positions[0] for s in alone.steps if s.positions[0]
            ]
        else:
            assert not any(step.positions[row] for step in receipt.steps)


# 5. The residual at the site moves by exactly the edit; earlier layers are untouched.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
def test_5_the_residual_moves_by_exactly_the_edit(architecture, layer):
    model = tiny_model(architecture)
    ids, mask = texts(model, "abcdef", "abc")
    sites = [Site(layer=i) for i in range(-1, 3)]
    plain = read(model, ids, sites, mask)
    vectors = random_vectors(2, model.d_model)
    with edit(model, [shift(vectors, [0, 1], site=Site(layer=layer))], batch=2):
        steered = read(model, ids, sites, mask)
    moved = (mask.bool() & (ids != model.bos_id))[..., None]
    for site in sites:
        if site.layer < layer:
            assert torch.equal(steered[site], plain[site])
        elif site.layer == layer:
            assert torch.equal(steered[site], torch.where(moved, plain[site] + vectors[:, None], plain[site]))
        else:
            assert not torch.equal(steered[site], plain[site])


# 8. Two edits at one site, or at two sites, both apply.


def test_8_two_edits_at_one_site_both_apply(model):
    ids, _ = texts(model, "abcdef")
    plain = read(model, ids, [SITE])[SITE]
    a, b = random_vectors(2, model.d_model)[:, None]
    with edit(model, [shift(a), shift(b, scope=Scope(window=(3, None)))]):
        steered = read(model, ids, [SITE])[SITE]
    expected = torch.zeros_like(plain)
    expected[:, 1:] += a
    expected[:, 3:] += b
    torch.testing.assert_close(steered - plain, expected, rtol=1e-5, atol=1e-5)


def test_8_edits_at_two_sites_both_apply(model):
    ids, _ = texts(model, "abcdef")
    early, late = Site(layer=0), Site(layer=2)
    a, b = random_vectors(2, model.d_model)[:, None]
    with edit(model, [shift(a, site=early)]):
        only_early = read(model, ids, [early, late])
    with edit(model, [shift(b, site=late), shift(a, site=early)]):
        both = read(model, ids, [early, late])
    assert torch.equal(both[early], only_early[early])
    assert torch.equal(both[late][:, 1:], only_early[late][:, 1:] + b)


# 9. Model, tokenizer, SAE and recipe are never mutated.


def test_9_model_and_tokenizer_are_never_changed(model):
    weights = {name: value.clone() for name, value in model.hf.state_dict().items()}
    config, generation = model.hf.config.to_dict(), model.hf.generation_config.to_dict()
    tokenizer = copy.deepcopy(model.tokenizer.__dict__ | {"_tokenizer": model.tokenizer.backend_tokenizer.to_str()})
    vectors = random_vectors(2, model.d_model)
    kept = vectors.clone()
    ids, mask = texts(model, "abcdef", "ab")
    given = ids.clone(), mask.clone()
    with edit(model, [shift(vectors, [0, 1])], batch=2):
        read(model, ids, [0, 1], mask)
        greedy(model, ids, mask)
    model.pad([[5, 6], [7]], side="right")
    assert all(torch.equal(value, weights[name]) for name, value in model.hf.state_dict().items())
    assert model.hf.config.to_dict() == config
    assert model.hf.generation_config.to_dict() == generation
    after = model.tokenizer.__dict__ | {"_tokenizer": model.tokenizer.backend_tokenizer.to_str()}
    assert {k: str(v) for k, v in after.items()} == {k: str(v) for k, v in tokenizer.items()}
    assert torch.equal(vectors, kept)
    assert torch.equal(ids, given[0])
    assert torch.equal(mask, given[1])


def test_9_the_residual_is_never_written_in_place(model):
    ids, _ = texts(model, "abcdef")
    outputs = []
    handle = model.blocks[1].register_forward_hook(
        lambda _m, _a, out: outputs.append(out[0] if isinstance(out, tuple) else out) and None
    )
    plain = read(model, ids, [SITE])[SITE]
    handle.remove()
    kept = []

    def delta(h):
        kept.append((h, h.clone()))
        return torch.ones_like(h)

    with edit(model, [SiteEdit(SITE, Scope(), None, delta)] * 2):
        model.hf(ids)
    assert all(torch.equal(h, copied) for h, copied in kept)
    assert torch.equal(kept[0][0], plain)


# 12. Unknown site, empty scope, wrong width: an error that names what was given and what is valid.


def test_12_an_unknown_site(model):
    with (
        pytest.raises(InputError, match=r"model.layers.7.output.*0 to 2"),
        edit(model, [shift(random_vectors(1, model.d_model), site=Site(layer=7))]),
    ):
        pytest.fail("the context was entered")


@pytest.mark.parametrize("scope", [Scope(window=(50, 60)), Scope(prompt=False), Scope(window=(1, 2), exclude=(1,))])
def test_12_a_scope_that_selects_nothing(model, scope):
    ids, _ = texts(model, "abcdef")
    with (
        pytest.raises(InputError, match=r"model.layers.1.output changed nothing.*selected no position"),
        edit(model, [shift(random_vectors(1, model.d_model)), shift(random_vectors(1, model.d_model), scope=scope)]),
    ):
        model.hf(ids)
    with edit(model, [shift(random_vectors(1, model.d_model), scope=scope)]):
        pass  # no forward pass, so nothing could be selected


def test_12_a_change_of_the_wrong_width(model):
    ids, _ = texts(model, "abcdef")
    wrong = SiteEdit(SITE, Scope(), None, lambda h: torch.zeros(*h.shape[:2], model.d_model + 1))
    with pytest.raises(InputError, match=r"model.layers.1.output.*\(1, 7, 17\).*\(1, 7, 16\)"), edit(model, [wrong]):
        model.hf(ids)
