"""The public `generate`: records, noise, recipes per row, and errors for people."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from trimtab.errors import InputError, MismatchError
from trimtab.lm.model import Model
from trimtab.spec import Scope
from trimtab.steer.generate import Record, generate
from trimtab.steer.recipe import Recipe
from trimtab.testing.models import EOS, tiny_model


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model("gemma3_text")


def direction(seed: int = 0) -> torch.Tensor:
    return torch.randn(16, generator=torch.Generator().manual_seed(seed))


def tokens(records: list[Record]) -> list[tuple[int, ...]]:
    return [record.token_ids for record in records]


def test_records_come_by_prompt_and_then_by_sample(model: Model) -> None:
    records = generate(model, ["ab", "c"], samples=3, max_new_tokens=5, seed=4)
    assert [(record.prompt, record.sample) for record in records] == [
        ("ab", 0),
        ("ab", 1),
        ("ab", 2),
        ("c", 0),
        ("c", 1),
        ("c", 2),
    ]
    for record in records:
        prompt = model.encode(record.prompt)
        assert list(record.token_ids[: record.generated_from]) == prompt
        assert len(record.token_ids) == len(prompt) + 5
        assert record.text == model.decode(record.token_ids[record.generated_from :])
        assert (record.recipe, record.seed, record.finished) == (None, 4, "length")
    assert len(set(tokens(records))) == 6


def test_a_text_depends_on_seed_prompt_and_sample_only(model: Model) -> None:
    one = generate(model, "ab", samples=2, max_new_tokens=8, seed=1)
    assert tokens(generate(model, ["zz", "ab", "q"], samples=2, max_new_tokens=8, seed=1, batch_size=4))[2:4] == tokens(
        one
    )
    assert tokens(generate(model, "ab", samples=5, max_new_tokens=8, seed=1)[:2]) == tokens(one)
    assert tokens(generate(model, "ab", samples=2, max_new_tokens=8, seed=2)) != tokens(one)


def test_a_prompt_given_again_counts_as_further_samples(model: Model) -> None:
    several = generate(model, "ab", samples=6, max_new_tokens=6)
    repeated = generate(model, ["ab"] * 3, samples=2, max_new_tokens=6)
    assert tokens(repeated) == tokens(several)
    assert [record.sample for record in repeated] == [0, 1, 2, 3, 4, 5]


def test_steered_and_unsteered_texts_share_their_noise(model: Model) -> None:
    """A strength too small to matter changes no token; one prompt, steered and not, is one sample of each."""
    faint = Recipe.vector(direction(), 1, 1e-7)
    records = generate(model, ["ab", "ab"], [None, faint], samples=4, max_new_tokens=10)
    assert tokens(records[:4]) == tokens(records[4:])
    strong = Recipe.vector(direction(), 1, 20.0)
    assert tokens(generate(model, "ab", strong, samples=4, max_new_tokens=10)) != tokens(records[:4])


@pytest.mark.parametrize(
    "scope", [Scope(), Scope(prompt=False), Scope(generated=False), Scope(window=(2, 6)), Scope(exclude=(1,), bos=True)]
)
def test_each_row_is_steered_as_the_plain_forward_pass_is(model: Model, scope: Scope) -> None:
    """Greedy, step by step without a cache: the whole text so far, edited by hand at the positions of the scope."""
    recipe, prompt = Recipe.vector(direction(), 1, 8.0, scope=scope), "abc"
    record = generate(model, ["x", prompt, "long prompt"], [None, recipe, -recipe], temperature=0, max_new_tokens=8)[1]
    ids = model.encode(prompt)
    n = len(ids)

    def add(_module: Any, _args: Any, output: Any) -> Any:
        h = output if isinstance(output, torch.Tensor) else output[0]
        at = torch.arange(h.shape[1])
        here = torch.where(at < n, scope.prompt, scope.generated) & ((at > 0) | scope.bos)
        if scope.window is not None:
            here &= (at >= scope.window[0]) & (at < (scope.window[1] or 10**9))
        for position in scope.exclude:
            here &= at != position
        new = h + 8.0 * direction() * here[:, None]
        return new if isinstance(output, torch.Tensor) else (new, *output[1:])

    handle = model.blocks[1].register_forward_hook(add)
    for _ in range(8):
        ids.append(int(model.hf(torch.tensor([ids])).logits[0, -1].argmax()))
    handle.remove()
    assert list(record.token_ids) == ids


def test_an_end_token_ends_a_text_and_is_kept_in_the_ids(model: Model) -> None:
    records = generate(model, "ab", samples=200, max_new_tokens=30, temperature=3.0)
    ended = [record for record in records if record.finished == "eos"]
    assert ended
    for record in records:
        assert (record.token_ids[-1] == EOS) == (record.finished == "eos")
        assert EOS not in record.token_ids[:-1]
        assert "<eos>" not in record.text


def test_nothing_is_left_on_the_model(model: Model) -> None:
    ids = torch.tensor([model.encode("abc")])
    before = model.hf(ids).logits
    generate(model, "ab", Recipe.vector(direction(), 1, 8.0), max_new_tokens=3)
    with pytest.raises(InputError):
        generate(
            model, "ab", Recipe.vector(direction(), 1, 1e38) + Recipe.vector(direction(), 1, 3e38), max_new_tokens=3
        )
    assert torch.equal(model.hf(ids).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.hf.modules())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompts": ""}, "empty"),
        ({"prompts": [""]}, "empty"),
        ({"prompts": [3]}, "text, not int"),
        ({"prompts": "a" * 125}, "too long"),
        ({"recipe": [None]}, "1 recipes for 2 prompts"),
        ({"samples": 0}, "samples"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": 1.5}, "seed"),
        ({"recipe": Recipe.vector(torch.ones(16), 1, scope=Scope(window=(50, None)))}, "would change nothing"),
        (
            {"recipe": Recipe.vector(torch.ones(16), 1, scope=Scope(prompt=False)), "max_new_tokens": 1},
            "would change nothing",
        ),
    ],
)
def test_wrong_input_is_one_clear_sentence(model: Model, change: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"prompts": ["ab", "c"], "max_new_tokens": 10, **change}
    with pytest.raises(InputError, match=says):
        generate(model, **arguments)


def test_a_recipe_for_another_model_is_refused(model: Model) -> None:
    with pytest.raises(MismatchError, match="width"):
        generate(model, "ab", Recipe.vector(torch.ones(8), 1), max_new_tokens=3)


def test_no_prompts_give_no_records(model: Model) -> None:
    assert generate(model, []) == []
