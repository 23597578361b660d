from __future__ import annotations

import copy
import json

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm.residual import Positions, SiteEdit, edit, read
from trimtab.spec import Scope, Site
from trimtab.testing.models import tiny_model

SITE = Site(layer=1)


def vector(model, seed=0, size=2.0):
    v = torch.randn(model.d_model, generator=torch.Generator().manual_seed(seed))
    return size * v / v.norm()


def add(model, seed=0, *, site=SITE, scope=None, rows=None, size=2.0):
    """Add one random vector, or one per row of `rows`."""
    if rows is None:
        v = vector(model, seed, size)
        return SiteEdit(site, scope or Scope(), None, lambda h: v.expand_as(h))
    many = torch.stack([vector(model, seed + row, size) for row in rows])
    return SiteEdit(site, scope or Scope(), torch.tensor(rows), lambda h: many[:, None].expand_as(h))


def ids_of(model, text):
    return torch.tensor([model.encode(text)])


def greedy(model, ids, mask=None, new=6, **options):
    mask = torch.ones_like(ids) if mask is None else mask
    return model.hf.generate(
        ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0, **options
    )


def edited_positions(receipt, row=0):
    return sorted({p for step in receipt.steps for p in step.positions[row]})


# --- scope -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope(), [1, 2, 3, 4, 5, 6, 7, 8]),
        (Scope(bos=True), [0, 1, 2, 3, 4, 5, 6, 7, 8]),
        (Scope(generated=False), [1, 2, 3]),
        (Scope(prompt=False), [4, 5, 6, 7, 8]),
        (Scope(window=(2, 6)), [2, 3, 4, 5]),
        (Scope(window=(5, None)), [5, 6, 7, 8]),
        (Scope(exclude=(1, 4, 8)), [2, 3, 5, 6, 7]),
        (Scope(prompt=False, window=(0, 6)), [4, 5]),
    ],
)
def test_scope_selects_absolute_positions(tiny, scope, expected, cache):
    with edit(tiny, [add(tiny, scope=scope)]) as receipt:
        greedy(tiny, ids_of(tiny, "abc"), use_cache=cache)
    assert edited_positions(receipt) == expected


def test_left_padding_does_not_shift_positions(tiny):
    ids, mask = tiny.pad([tiny.encode("abcdef"), tiny.encode("ab")])
    with edit(tiny, [add(tiny, scope=Scope(window=(1, 3)))]) as receipt:
        greedy(tiny, ids, mask)
    assert edited_positions(receipt, 0) == [1, 2]
    assert edited_positions(receipt, 1) == [1, 2]


def test_bos_is_found_by_its_id_wherever_it_stands(tiny):
    ids = torch.tensor([[1, 7, 1, 8]])
    with edit(tiny, [add(tiny)]) as receipt:
        tiny.hf(ids)
    assert receipt.steps[0].positions == [[1, 3]]


def test_embeddings_instead_of_ids_take_the_first_real_position_as_bos(tiny):
    ids, mask = tiny.pad([tiny.encode("abcd"), tiny.encode("a")])
    embeds = tiny.hf.get_input_embeddings()(ids)
    with edit(tiny, [add(tiny)]) as receipt:
        tiny.hf.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert edited_positions(receipt, 0) == [1, 2, 3, 4, 5, 6]
    assert edited_positions(receipt, 1) == [1, 2, 3]


# --- the clock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_a_one_token_prompt_is_a_prompt(gpt2, cache):
    ids = ids_of(gpt2, "a")
    assert ids.shape == (1, 1)
    with edit(gpt2, [add(gpt2, scope=Scope(prompt=False))]) as generated:
        greedy(gpt2, ids, new=4, use_cache=cache)
    with edit(gpt2, [add(gpt2, scope=Scope(generated=False))]) as prompt:
        greedy(gpt2, ids, new=4, use_cache=cache)
    assert edited_positions(generated) == [1, 2, 3]
    assert edited_positions(prompt) == [0]


def test_a_second_prompt_starts_a_new_sequence(tiny):
    with edit(tiny, [add(tiny, scope=Scope(generated=False))]) as receipt:
        greedy(tiny, ids_of(tiny, "ab"), new=2)
        greedy(tiny, ids_of(tiny, "abc"), new=2)
        greedy(tiny, ids_of(tiny, "xyzuv"), new=2, use_cache=False)
    assert [step.positions[0] for step in receipt.steps] == [
        [1, 2],
        [],
        [1, 2, 3],
        [],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5],
    ]


def test_several_tokens_at_once_after_the_prompt_are_generated(tiny):
    ids = ids_of(tiny, "abcdef")
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))]) as receipt:
        cache = tiny.hf(ids[:, :3]).past_key_values
        tiny.hf(ids[:, 3:], past_key_values=cache)
    assert [step.positions[0] for step in receipt.steps] == [[], [3, 4, 5, 6]]


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_a_prompt_that_is_read_in_chunks_is_prompt(tiny, chunk):
    before = dict(vars(tiny.hf))
    ids = ids_of(tiny, "abcdef")
    plain = greedy(tiny, ids, new=3)
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))]) as generated:
        one = greedy(tiny, ids, new=3, prefill_chunk_size=chunk)
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))]):
        assert greedy(tiny, ids, new=3).tolist() == one.tolist()
    with edit(tiny, [add(tiny, scope=Scope(generated=False))]) as prompt, edit(tiny, [add(tiny)]):
        greedy(tiny, ids, new=3, prefill_chunk_size=chunk)
    assert edited_positions(generated) == [7, 8]
    assert edited_positions(prompt) == [1, 2, 3, 4, 5, 6]
    assert vars(tiny.hf) == before
    assert greedy(tiny, ids, new=3, prefill_chunk_size=chunk).tolist() == plain.tolist()


def test_the_second_turn_of_a_conversation_is_prompt(tiny):
    ids = ids_of(tiny, "abcdef")
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))]) as receipt:
        out = tiny.hf.generate(
            ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True, pad_token_id=0, eos_token_id=None
        )
        whole = torch.cat([out.sequences, ids[:, 1:]], 1)
        tiny.hf.generate(
            whole, past_key_values=out.past_key_values, max_new_tokens=3, do_sample=False, pad_token_id=0,
            eos_token_id=None,
        )  # fmt: skip
    assert edited_positions(receipt) == [7, 8, 16, 17]


def test_a_cache_filled_before_the_context_holds_prompt(tiny):
    ids = ids_of(tiny, "abcdef")
    cache = tiny.hf(ids[:, :3]).past_key_values
    with edit(tiny, [add(tiny)]) as receipt:
        greedy(tiny, ids, new=2, past_key_values=cache)
    assert [step.positions[0] for step in receipt.steps] == [[3, 4, 5, 6], [7]]


def test_prompts_that_share_copies_of_a_cached_prefix_are_prompts(tiny):
    ids = ids_of(tiny, "abcdefgh")
    with edit(tiny, [add(tiny, scope=Scope(generated=False))]) as receipt:
        prefix = tiny.hf(ids[:, :3]).past_key_values
        for stop in (5, 7):
            tiny.hf(ids[:, 3:stop], past_key_values=copy.deepcopy(prefix))
    assert [step.positions[0] for step in receipt.steps] == [[1, 2], [3, 4], [3, 4, 5, 6]]


def test_continuing_without_a_mask_remembers_the_padding(tiny):
    ids, mask = tiny.pad([tiny.encode("abcdef"), tiny.encode("ab")])
    with edit(tiny, [add(tiny)]) as receipt:
        cache = tiny.hf(ids, attention_mask=mask).past_key_values
        tiny.hf(torch.tensor([[5], [5]]), past_key_values=cache)
    assert receipt.steps[1].positions == [[7], [3]]


def test_going_back_in_the_cache_is_refused(tiny):
    ids = ids_of(tiny, "abcdef")
    with edit(tiny, [add(tiny)]):
        cache = tiny.hf(ids).past_key_values
        cache.crop(-4)
        with pytest.raises(UnsupportedError, match="assisted"):
            tiny.hf(ids[:, 3:5], past_key_values=cache)


def test_prompt_lookup_decoding_is_refused(tiny):
    with edit(tiny, [add(tiny)]), pytest.raises(UnsupportedError, match="prompt-lookup"):
        greedy(tiny, ids_of(tiny, "abcabcabcabc"), new=8, prompt_lookup_num_tokens=3)


def test_candidates_in_the_first_pass_are_refused_before_any_is_rejected(tiny):
    """Assisted decoding puts its first candidates behind the prompt, where they would pass for prompt."""
    from transformers import DynamicCache

    ids = ids_of(tiny, "abcdef")
    with edit(tiny, [add(tiny)]):
        tiny.hf(ids, logits_to_keep=3)
        tiny.hf(ids, past_key_values=DynamicCache(config=tiny.hf.config), logits_to_keep=1)
        with pytest.raises(UnsupportedError, match="assisted"):
            tiny.hf(ids, past_key_values=DynamicCache(config=tiny.hf.config), logits_to_keep=3)


def test_a_static_cache_is_refused(tiny):
    ids, mask = tiny.pad([tiny.encode("abc"), tiny.encode("a")])
    with edit(tiny, [add(tiny)]), pytest.raises(UnsupportedError, match="default cache"):
        greedy(tiny, ids, mask, cache_implementation="static", disable_compile=True)


def test_a_block_called_on_its_own_is_an_error():
    model = tiny_model("gpt2")
    with edit(model, [add(model)]), pytest.raises(UnsupportedError, match="outside of a forward pass"):
        model.blocks[1](torch.zeros(1, 2, model.d_model))


def test_positions_given_from_outside_replace_the_clock(tiny):
    ids = ids_of(tiny, "abcd")
    now = Positions(
        absolute=torch.arange(10, 15)[None],
        generated=torch.tensor([[False, False, False, True, True]]),
        real=torch.ones(1, 5, dtype=torch.bool),
        bos=torch.tensor([[False, True, False, False, False]]),
    )
    with edit(tiny, [add(tiny)], positions=lambda: now) as receipt:
        tiny.hf(ids)
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))], positions=lambda: now) as generated:
        tiny.hf(ids)
    assert receipt.steps[0].positions == [[10, 12, 13, 14]]
    assert generated.steps[0].positions == [[13, 14]]


def test_positions_of_the_wrong_shape_are_refused(tiny):
    now = Positions(*(torch.zeros(1, 2, dtype=torch.long) for _ in range(4)))
    with edit(tiny, [add(tiny)], positions=lambda: now), pytest.raises(UnsupportedError, match="wrong places"):
        tiny.hf(ids_of(tiny, "abcd"))


# --- rows and beams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
def test_beams_repeat_the_edits_of_their_row(tiny, cache):
    ids = torch.tensor([tiny.encode("abc"), tiny.encode("xyz")])
    both = [add(tiny, rows=[0, 1])]
    with edit(tiny, both, batch=2) as receipt:
        together = greedy(tiny, ids, num_beams=3, use_cache=cache)
    assert len(receipt.steps[0].positions) == 6
    for row in range(2):
        with edit(tiny, [add(tiny, seed=row)], batch=1):
            alone = greedy(tiny, ids[row : row + 1], num_beams=3, use_cache=cache)
        assert torch.equal(together[row], alone[0])
    assert not torch.equal(greedy(tiny, ids, num_beams=3), together)


@pytest.mark.parametrize("cache", [True, False])
def test_beams_are_edited_at_every_position_once_per_pass(tiny, cache):
    with edit(tiny, [add(tiny, scope=Scope(prompt=False))], batch=1) as receipt:
        greedy(tiny, ids_of(tiny, "abc"), new=5, num_beams=3, use_cache=cache)
    for step, grown in enumerate(receipt.steps):
        expected = [] if step == 0 else [3 + step] if cache else list(range(4, 4 + step))
        assert grown.positions == [expected] * 3


def test_beam_search_with_and_without_cache_agrees(tiny):
    ids = torch.tensor([tiny.encode("abc"), tiny.encode("xyz")])
    change = [add(tiny, rows=[0], scope=Scope(prompt=False)), add(tiny, seed=5, rows=[1], scope=Scope(generated=False))]
    with edit(tiny, change, batch=2):
        cached = greedy(tiny, ids, num_beams=3)
    with edit(tiny, change, batch=2):
        uncached = greedy(tiny, ids, num_beams=3, use_cache=False)
    assert torch.equal(cached, uncached)


def test_a_number_of_rows_that_does_not_fit_is_refused(tiny):
    with edit(tiny, [add(tiny, rows=[0, 1])], batch=2), pytest.raises(InputError, match=r"3 rows.*multiple of the 2"):
        tiny.hf(torch.tensor([[1, 5]] * 3))
    with edit(tiny, [add(tiny, rows=[0, 4])]), pytest.raises(InputError, match=r"row 4.*rows 0 to 2"):
        tiny.hf(torch.tensor([[1, 5]] * 3))


def test_rows_without_an_edit_stay_bit_identical(tiny):
    ids = torch.tensor([tiny.encode("abc")] * 3)
    plain = tiny.hf(ids).logits
    with edit(tiny, [add(tiny, rows=[1])]):
        steered = tiny.hf(ids).logits
    assert torch.equal(steered[[0, 2]], plain[[0, 2]])
    assert not torch.equal(steered[1], plain[1])


# --- the change itself -----------------------------------------------------------------------------------------------


def test_edits_at_one_site_read_the_unedited_residual(tiny):
    ids = ids_of(tiny, "abc")
    plain = read(tiny, ids, [SITE])[SITE]
    seen = []

    def double(h):
        seen.append(h.clone())
        return h

    change = [SiteEdit(SITE, Scope(), None, double), SiteEdit(SITE, Scope(), None, double)]
    with edit(tiny, change):
        steered = read(tiny, ids, [SITE])[SITE]
    assert all(torch.equal(h, plain) for h in seen)
    torch.testing.assert_close(steered[:, 1:], 3 * plain[:, 1:])
    assert torch.equal(steered[:, 0], plain[:, 0])


def test_nested_contexts_both_apply(tiny):
    ids = ids_of(tiny, "abc")
    plain = read(tiny, ids, [SITE])[SITE]
    with edit(tiny, [add(tiny, 1)]) as outer, edit(tiny, [add(tiny, 2)]) as inner:
        both = read(tiny, ids, [SITE])[SITE]
    torch.testing.assert_close(both[:, 1:] - plain[:, 1:], (vector(tiny, 1) + vector(tiny, 2)).expand(1, 3, -1))
    assert len(outer.steps) == len(inner.steps) == 1
    with edit(tiny, [add(tiny, 1)]):
        with edit(tiny, [add(tiny, 2)]):
            tiny.hf(ids)
        one = read(tiny, ids, [SITE])[SITE]
    torch.testing.assert_close(one[:, 1:] - plain[:, 1:], vector(tiny, 1).expand(1, 3, -1))


def test_half_precision_is_edited_in_float32():
    model = tiny_model("llama")
    model.hf.to(torch.bfloat16)
    ids = ids_of(model, "abc")
    plain = read(model, ids, [SITE])[SITE]
    seen = []

    def delta(h):
        seen.append(h.dtype)
        return vector(model).expand_as(h)

    with edit(model, [SiteEdit(SITE, Scope(), None, delta)]):
        steered = read(model, ids, [SITE])[SITE]
    assert plain.dtype == steered.dtype == torch.bfloat16
    assert seen == [torch.float32]
    assert torch.equal(steered[:, 1:], (plain.float() + vector(model)).to(torch.bfloat16)[:, 1:])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_change_that_is_not_finite_is_refused(tiny, bad):
    ids, mask = tiny.pad([tiny.encode("ab"), tiny.encode("a")])

    def delta(h):
        return torch.full_like(h, bad)

    change = SiteEdit(SITE, Scope(), torch.tensor([1]), delta)
    with edit(tiny, [change]), pytest.raises(InputError, match=r"model.layers.1.output, row 1: the change is NaN"):
        tiny.hf(ids, attention_mask=mask)


def test_a_change_that_is_not_finite_where_nothing_is_edited_does_no_harm(tiny):
    def only_bos_is_bad(h):
        out = torch.ones_like(h)
        out[:, 0] = float("nan")
        return out

    with edit(tiny, [SiteEdit(SITE, Scope(), None, only_bos_is_bad)]):
        assert torch.isfinite(tiny.hf(ids_of(tiny, "abc")).logits).all()


def test_overflow_in_half_precision_is_refused():
    model = tiny_model("llama")
    model.hf.to(torch.float16)
    with edit(model, [add(model, size=1e6)]), pytest.raises(InputError, match=r"row 0.*float16"):
        model.hf(ids_of(model, "abc"))


# --- the receipt -----------------------------------------------------------------------------------------------------


def test_the_receipt_tells_how_large_the_change_was(tiny):
    ids = torch.tensor([tiny.encode("abc"), tiny.encode("xyz")])
    plain = read(tiny, ids, [SITE])[SITE]
    with edit(tiny, [add(tiny, rows=[1], size=0.5)]) as receipt:
        tiny.hf(ids)
    (step,) = receipt.steps
    assert step.site == SITE
    assert step.positions == [[], [1, 2, 3]]
    assert step.ratio[0] is None
    assert step.ratio[1] == pytest.approx(float((0.5 / plain[1, 1:].norm(dim=-1)).mean()), rel=1e-5)


def test_the_receipt_as_json_and_as_one_line(tiny):
    with edit(tiny, [add(tiny), add(tiny, site=Site(layer=0))]) as receipt:
        greedy(tiny, ids_of(tiny, "abc"), new=3)
    plain = json.loads(json.dumps(receipt.to_json(), allow_nan=False))
    assert [step["site"] for step in plain["steps"]][:2] == ["model.layers.0.output", "model.layers.1.output"]
    assert [step["positions"] for step in plain["steps"]] == [[[1, 2, 3]]] * 2 + [[[4]]] * 2 + [[[5]]] * 2
    line = str(receipt)
    assert line.startswith("10 positions edited in 6 steps at model.layers.0.output, model.layers.1.output, mean size")
    assert "\n" not in line


def test_without_record_the_edits_are_the_same_and_the_receipt_empty(tiny):
    ids = ids_of(tiny, "abc")
    with edit(tiny, [add(tiny)]):
        noted = tiny.hf(ids).logits
    with edit(tiny, [add(tiny)], record=False) as receipt:
        silent = tiny.hf(ids).logits
    assert torch.equal(noted, silent)
    assert receipt.steps == []
    assert str(receipt) == "nothing recorded"
