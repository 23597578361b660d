"""Sampling is exact: draws against the softmax that they should follow, filters against transformers' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from trimtab.errors import InputError
from trimtab.lm.sampling import BLOCK, draw, logits_of, stream_key, uniforms
from trimtab.spec import Sampling

ROWS = 5000
SETTINGS = [
    {},
    {"temperature": 0.5},
    {"top_k": 3},
    {"top_k": 130},
    {"top_p": 0.7},
    {"min_p": 0.05},
    {"temperature": 1.5, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
]


def scores(words: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(words, generator=torch.Generator().manual_seed(words)) * spread


def wanted(values: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The distribution [words] by transformers' processors, in its order."""
    filters = LogitsProcessorList()
    if sampling.top_k is not None:
        filters.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None:
        filters.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        filters.append(MinPLogitsWarper(sampling.min_p))
    return filters(torch.zeros(1, 1), values[None] / sampling.temperature)[0].double().softmax(-1)


def noises(steps: int) -> Iterator[torch.Tensor]:
    keys = [stream_key(7, "chi", sample) for sample in range(ROWS)]
    for step in range(steps):
        yield uniforms(keys, [step] * ROWS)


@pytest.mark.parametrize(("words", "draws"), [(50, 200_000), (700, 1_000_000)])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_million_draws_follow_the_filtered_softmax(words: int, draws: int, settings: dict[str, float]) -> None:
    sampling, values = Sampling(**settings), scores(words)
    expected = wanted(values, sampling)
    logits = logits_of((values / sampling.temperature).expand(ROWS, -1))
    counts = sum(
        torch.bincount(draw(logits, noise, [sampling] * ROWS), minlength=words) for noise in noises(draws // ROWS)
    )
    assert counts[expected == 0].sum() == 0
    # words too rare for the test's approximation are counted together
    rare = expected * draws < 20
    seen = [*counts[~rare].tolist(), int(counts[rare].sum())]
    hoped = [*(expected[~rare] * draws).tolist(), float(expected[rare].sum() * draws)]
    if hoped[-1] == 0:
        seen.pop()
        hoped.pop()
    assert len(seen) >= 3
    assert chisquare(seen, hoped).pvalue > 1e-4


@pytest.mark.parametrize("settings", [*SETTINGS, {"temperature": 0}])
def test_each_row_of_a_mixed_batch_is_drawn_as_if_alone(settings: dict[str, float]) -> None:
    """Neighbours with other settings change nothing."""
    mixed = [Sampling(**one) for one in (*SETTINGS, settings, {"temperature": 0})]
    values = torch.randn(len(mixed), 5000, generator=torch.Generator().manual_seed(1)) * 3
    noise = torch.rand(len(mixed), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = draw(logits_of(values), noise, mixed)
    alone = [draw(logits_of(values[i : i + 1]), noise[i : i + 1], mixed[i : i + 1]).item() for i in range(len(mixed))]
    assert together.tolist() == alone


def test_greedy_takes_the_first_of_the_largest() -> None:
    values = torch.zeros(2, 3 * BLOCK + 5)
    values[0, [70, 71, 190]] = 4.0
    values[1, -1] = 1.0
    assert draw(logits_of(values), torch.rand(2).double(), [Sampling(temperature=0)] * 2).tolist() == [
        70,
        3 * BLOCK + 4,
    ]


def test_the_ends_of_the_noise_reach_the_ends_of_the_vocabulary_and_no_padding() -> None:
    values = torch.zeros(2, BLOCK + 1)
    noise = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_of(values), noise, [Sampling()] * 2).tolist() == [0, BLOCK]


def test_a_word_without_weight_is_never_drawn() -> None:
    values = torch.full((3, 2 * BLOCK), -torch.inf)
    values[:, 100] = 0.0
    noise = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_of(values), noise, [Sampling()] * 3).tolist() == [100] * 3


def test_top_p_reaches_beyond_the_first_candidates() -> None:
    """A flat distribution over 20,000 words: nearly all of them are in the nucleus."""
    values = scores(20_000, spread=0.01).expand(4, -1)
    noise = torch.tensor([0.1, 0.5, 0.9, 0.999], dtype=torch.float64)
    drawn = draw(logits_of(values), noise, [Sampling(top_p=0.98)] * 4)
    rank = values[0].argsort(descending=True).argsort()
    share = rank[drawn].double() / 20_000
    assert (share - noise * 0.98).abs().max() < 0.01


def test_logits_that_are_not_finite_are_refused_with_the_row() -> None:
    values = torch.zeros(3, 100)
    values[1, 5] = torch.nan
    with pytest.raises(InputError, match="row 1"):
        draw(logits_of(values), torch.rand(3).double(), [Sampling()] * 3)


def test_noise_is_uniform_and_independent_between_steps_and_streams() -> None:
    stream = uniforms([stream_key(0, "a", 0)] * 50_000, list(range(50_000)))
    across = uniforms([stream_key(0, "a", sample) for sample in range(50_000)], [0] * 50_000)
    for noise in (stream, across):
        assert kstest(noise.numpy(), "uniform").pvalue > 1e-3
        assert abs(torch.corrcoef(torch.stack([noise[1:], noise[:-1]]))[0, 1]) < 0.02


def test_a_stream_is_a_function_of_seed_prompt_sample_and_step() -> None:
    """The values are golden: changing them would change every text that was ever generated."""
    assert len({stream_key(*one) for one in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1)]}) == 4
    key = stream_key(3, "Once upon a time", 2)
    assert key == 7279698544314499482
    assert uniforms([key, key], [0, 9]).tolist() == [0.8348916210653264, 0.9945915510985347]
