"""Packed layers: the same arithmetic, only while the context lasts, and never with weights that have changed."""

from __future__ import annotations

import pytest
import torch

from trimtab.lm import packed
from trimtab.lm.model import Model
from trimtab.lm.packed import can_pack, pack, packed_layers, product, rounded
from trimtab.testing.models import tiny_model

IDS = torch.tensor([[1, 20, 30, 40, 50]])


@pytest.fixture
def model(request: pytest.FixtureRequest) -> Model:
    return tiny_model(getattr(request, "param", "llama"))


def forwards(model: Model) -> list[str]:
    return [name for name, module in model.hf.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("model", ["gpt2", "gpt_neox", "gemma3_text"], indirect=True)
def test_packed_layers_compute_the_same(model: Model) -> None:
    """Linear layers with and without bias, and the transposed ones of GPT-2."""
    plain = model.hf(IDS).logits
    with packed_layers(model):
        assert len(forwards(model)) >= 12
        assert (model.hf(IDS).logits - plain).abs().max() < 1e-5
    assert torch.equal(model.hf(IDS).logits, plain)


def test_everything_is_put_back_after_an_error(model: Model) -> None:
    with pytest.raises(ZeroDivisionError), packed_layers(model):
        raise ZeroDivisionError
    assert forwards(model) == []


def test_packing_stops_half_way_and_is_undone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []

    def failing(module: torch.nn.Module, piece: int | None = None) -> list[torch.Tensor]:
        if len(done) == 3:
            raise MemoryError
        done.append(module)
        return [module.weight]

    monkeypatch.setattr(packed, "pack", failing)
    with pytest.raises(MemoryError), packed_layers(model):
        pass
    assert len(done) == 3
    assert forwards(model) == []


def test_a_weight_that_has_changed_is_packed_again(model: Model) -> None:
    with packed_layers(model):
        before = model.hf(IDS).logits
    with torch.no_grad():
        model.blocks[0].mlp.up_proj.weight.mul_(3)
    with packed_layers(model):
        after = model.hf(IDS).logits
    assert (after - model.hf(IDS).logits).abs().max() < 1e-5
    assert (after - before).abs().max() > 1e-4


def test_hooks_of_other_people_still_run(model: Model) -> None:
    calls = []
    handle = model.blocks[0].mlp.up_proj.register_forward_hook(lambda *_: calls.append(1))
    with packed_layers(model):
        model.hf(IDS)
    handle.remove()
    assert calls == [1]


def test_nothing_is_packed_when_memory_is_short(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_pack(model)
    monkeypatch.setattr(packed, "free_bytes", lambda _model: 1000)
    assert not can_pack(model)
    with packed_layers(model):
        assert forwards(model) == []


def test_products_are_made_with_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number of rows is a program that oneDNN keeps: 128 rows that end one by one would fill memory with them."""
    made = set()
    plain = packed._linear

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        made.add(x.shape[:-1].numel())
        return plain(x, weight, bias)

    monkeypatch.setattr(packed, "_linear", counted)
    layer = torch.nn.Linear(6, 5)
    weight = pack(layer)[0]
    for rows in range(1, 129):
        x = torch.randn(rows, 1, 6)
        new = product(x, weight, layer.bias)
        assert new.shape == (rows, 1, 5)
        assert (new - layer(x)).abs().max() < 1e-5
    assert len(made) == 40
    assert max(made) == 128


def test_no_product_is_rounded_up_by_more_than_an_eighth() -> None:
    for rows in range(5000):
        assert rows <= rounded(rows) <= rows * 9 / 8
    assert len({rounded(rows) for rows in range(1, 4097)}) == 80
