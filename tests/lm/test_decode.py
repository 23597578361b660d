"""The decode loop against transformers, and every row against itself alone."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm.cache import RowCache
from trimtab.lm.decode import Progress, Row, Written, decode
from trimtab.lm.head import Head
from trimtab.lm.load import wrap
from trimtab.lm.memory import bytes_per_row, rows_that_fit
from trimtab.lm.model import Model
from trimtab.lm.sampling import stream_key
from trimtab.spec import Sampling, Scope
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import ARCHITECTURES, tiny_model

PROMPTS = ["Hello", "a", "some longer prompt", "Hello", "xyz"]
GREEDY = Sampling(temperature=0, max_new_tokens=20)
# float32 sums run in another order in another batch; largest difference of logits met: 2e-6 at a spread of 1
LOGIT_TOLERANCE = 2e-5


def row(model: Model, text: str, sample: int = 0, sampling: Sampling = GREEDY, recipe: Recipe | None = None) -> Row:
    return Row(tuple(model.encode(text)), stream_key(0, text, sample), sampling, recipe)


def transformers_greedy(model: Model, text: str, n: int) -> list[int]:
    ids = torch.tensor([model.encode(text)])
    # without its cache, because transformers gives a tiny Llama with a `sliding_window` in its configuration a
    # sliding cache, although Llama's attention has no window
    out = model.hf.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, use_cache=False, pad_token_id=0
    )
    return out[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_greedy_equals_transformers_token_for_token(architecture: str, batch_size: int) -> None:
    """Longer than the sliding windows (8 tokens), in padded batches that rows enter and leave."""
    model = tiny_model(architecture)
    lengths = [20, 9, 14, 3, 17]
    rows = [
        row(model, text, sampling=Sampling(temperature=0, max_new_tokens=n))
        for text, n in zip(PROMPTS, lengths, strict=True)
    ]
    written = decode(model, rows, batch_size=batch_size)
    assert [list(one.tokens) for one in written] == [
        transformers_greedy(model, text, n) for text, n in zip(PROMPTS, lengths, strict=True)
    ]


@pytest.mark.parametrize("architecture", ["gpt_neo", "gemma3_text", "phi3"])
def test_local_layers_of_every_kind(architecture: str) -> None:
    model = tiny_model(architecture, n_layers=6)
    written = decode(model, [row(model, text) for text in PROMPTS], batch_size=3)
    assert [list(one.tokens) for one in written] == [transformers_greedy(model, text, 20) for text in PROMPTS]


def mixed_rows(model: Model) -> list[Row]:
    """Rows that differ in everything."""
    direction = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    recipes = [None, Recipe.vector(direction, 1, 3.0), Recipe.vector(-direction, 0, 0.5, unit="norm")]
    recipes.append(recipes[1] + Recipe.project(direction, 1, 2.0))
    settings = [
        Sampling(max_new_tokens=12),
        Sampling(max_new_tokens=25, top_k=20),
        Sampling(max_new_tokens=7, temperature=0),
        Sampling(max_new_tokens=30, temperature=0.7, top_p=0.9),
        Sampling(max_new_tokens=1, min_p=0.1),
    ]
    return [
        row(model, PROMPTS[i % 5], sample=i // 5, sampling=settings[i // 2 % 5], recipe=recipes[i // 3 % 4])
        for i in range(24)
    ]


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "gemma3_text", "llama"])
def test_a_row_does_not_depend_on_its_neighbours(architecture: str) -> None:
    """The same texts alone, in batches of 3, 7 and 24, and in another order."""
    model = tiny_model(architecture)
    rows = mixed_rows(model)
    alone = [decode(model, [one], batch_size=1)[0] for one in rows]
    for size in (3, 7, 24):
        assert decode(model, rows, batch_size=size) == alone
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1)).tolist()
    assert decode(model, [rows[i] for i in order], batch_size=6) == [alone[i] for i in order]


def test_logits_of_a_row_in_a_batch_equal_those_of_the_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3_text")
    seen: list[torch.Tensor] = []
    plain = Head.__call__

    def spy(self: Head, hidden: torch.Tensor, temperature: torch.Tensor | None) -> object:
        logits = plain(self, hidden, temperature)
        seen.append(logits.values[:, : self.words].clone())
        return logits

    monkeypatch.setattr(Head, "__call__", spy)
    sampling = Sampling(max_new_tokens=15)
    rows = [row(model, text, sampling=sampling) for text in PROMPTS]
    together = decode(model, rows, batch_size=5)
    batch = torch.stack(seen)
    for i, one in enumerate(rows):
        seen.clear()
        assert decode(model, [one], batch_size=1) == [together[i]]
        assert (torch.stack(seen)[:, 0] - batch[:, i]).abs().max() < LOGIT_TOLERANCE
    ids = torch.tensor([[*rows[2].prompt, *together[2].tokens]])
    whole = model.hf(ids).logits[0, len(rows[2].prompt) - 1 : -1]
    assert (whole - batch[:, 2]).abs().max() < LOGIT_TOLERANCE


def test_a_row_stops_at_an_end_token_and_its_place_is_taken() -> None:
    model = tiny_model("gpt2")
    sampling = Sampling(max_new_tokens=40)
    rows = [row(model, "abc", sample, sampling) for sample in range(20)]
    free = decode(model, rows, batch_size=20)
    stops = set(range(60))  # about one token in four
    stopped = decode(model, rows, batch_size=4, stops=stops)
    for one, other in zip(free, stopped, strict=True):
        first = next((i for i, token in enumerate(one.tokens) if token in stops), None)
        expected = one if first is None else Written(one.tokens[: first + 1], "eos")
        assert other == expected
    assert len({len(one.tokens) for one in stopped}) > 5


def test_each_distinct_prompt_and_edit_is_computed_once() -> None:
    model = tiny_model("gpt2")
    recipe = Recipe.vector(torch.ones(16), 1)
    rows = [
        row(model, "ab", i, Sampling(max_new_tokens=3), r) for i, r in enumerate([None, None, recipe, recipe, recipe])
    ]
    shapes: list[tuple[int, ...]] = []
    handle = model.hf.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    decode(model, rows, batch_size=8)
    handle.remove()
    assert shapes == [(2, 3), (5, 1), (5, 1)]


def test_rows_that_are_steered_after_the_prompt_only_share_its_pass() -> None:
    model = tiny_model("gpt2")
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    recipes = [Recipe.vector(vector, 1, size, scope=Scope(prompt=False)) for size in (3.0, -5.0)]
    sampling = Sampling(max_new_tokens=8)
    rows = [Row((1, 5, 9), 3, sampling, recipe, edits_prompt=False) for recipe in (None, *recipes)]
    widths: list[tuple[int, ...]] = []
    handle = model.hf.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    together = decode(model, rows, batch_size=8)
    handle.remove()
    assert widths[0] == (1, 3)
    apart = [decode(model, [replace(one, edits_prompt=True)], batch_size=1)[0] for one in rows]
    assert together == apart
    assert len({one.tokens for one in together}) == 3


def test_a_bfloat16_model_gives_transformers_logits_to_its_own_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gemma3_text")
    model = wrap(model.hf.bfloat16(), model.tokenizer, "tiny")
    seen: list[torch.Tensor] = []
    plain = Head.__call__

    def spy(self: Head, hidden: torch.Tensor, temperature: torch.Tensor | None) -> object:
        logits = plain(self, hidden, temperature)
        seen.append(logits.values[:, : self.words].clone())
        return logits

    monkeypatch.setattr(Head, "__call__", spy)
    rows = [row(model, text, sampling=Sampling(max_new_tokens=10)) for text in PROMPTS]
    written = decode(model, rows, batch_size=5)
    for i, one in enumerate(rows):
        whole = model.hf(torch.tensor([[*one.prompt, *written[i].tokens]])).logits[0, len(one.prompt) - 1 : -1]
        # 8 bits of mantissa: 0.4 % of logits of size 1, over three blocks
        assert (whole.float() - torch.stack(seen)[:, i]).abs().max() < 0.03


def test_inside_another_edit_is_refused() -> None:
    model = tiny_model("gpt2")
    with (
        pytest.raises(UnsupportedError, match="give the recipe to generate"),
        model.edited(Recipe.vector(torch.ones(16), 1)),
    ):
        decode(model, [row(model, "ab")], batch_size=1)


def test_the_cache_stays_as_it_was_laid_out() -> None:
    """60 rows through 2 places: the buffer holds one row's length and some slack, and is moved back when it is full."""
    model = tiny_model("gemma3_text")
    rows = [row(model, "ab", i, Sampling(max_new_tokens=5 + i % 7)) for i in range(60)]
    spans: list[int] = []
    handle = model.blocks[0].self_attn.register_forward_hook(
        lambda _module, _args, kwargs, _out: spans.append(kwargs["past_key_values"].layers[0].keys.shape[2]),
        with_kwargs=True,
    )
    together = decode(model, rows, batch_size=2)
    handle.remove()
    assert max(spans) <= 3 + 11 + 64
    assert len(spans) > 200
    assert together == [decode(model, [one], batch_size=1)[0] for one in rows]


def test_progress_counts_rows_and_tokens() -> None:
    model = tiny_model("gpt2")
    seen: list[Progress] = []
    decode(
        model, [row(model, "ab", i, Sampling(max_new_tokens=4)) for i in range(6)], batch_size=2, progress=seen.append
    )
    assert (seen[-1].done, seen[-1].rows, seen[-1].tokens, seen[-1].left) == (6, 6, 24, 0)
    assert all(one.tokens + one.left == 24 for one in seen)
    assert seen[-1].tokens_per_second > 0
    assert seen[0].seconds_left > 0


def test_a_strength_that_breaks_the_model_is_refused() -> None:
    model = tiny_model("gpt2")
    steep = Recipe.vector(torch.ones(16), 1, 1e38) + Recipe.vector(torch.ones(16), 1, 3e38)
    with pytest.raises(InputError, match=r"NaN or infinite|not finite"):
        decode(model, [row(model, "ab", recipe=steep)], batch_size=1)


def test_the_batch_is_chosen_from_memory() -> None:
    model = tiny_model("llama", n_layers=2, d_model=16)
    # keys and values: 2 layers x 2 x 1 head x 8 numbers x 4 bytes per token; logits: 8 bytes per word
    assert bytes_per_row(model, 10) == 10 * 2 * 2 * 8 * 4 + 8 * 259
    assert rows_that_fit(model, 10, limit=5 * bytes_per_row(model, 10) + 1) == 5
    assert rows_that_fit(model, 10, limit=1) == 1
    assert rows_that_fit(model, 10, limit=1 << 40) == 128


def test_the_cache_is_given_back_at_once() -> None:
    """A long sweep makes one cache after another: a cycle in it would hold gigabytes until a full collection."""
    model = tiny_model()
    gc.collect()
    before = [one for one in gc.get_objects() if type(one) is RowCache]
    gc.disable()
    try:
        decode(model, [row(model, text) for text in PROMPTS], batch_size=2)
        assert len([one for one in gc.get_objects() if type(one) is RowCache]) == len(before)
    finally:
        gc.enable()
