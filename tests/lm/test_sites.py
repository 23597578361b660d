from __future__ import annotations

import pytest
import torch
from torch import nn

from trimtab.errors import InputError, UnsupportedError
from trimtab.lm.load import wrap
from trimtab.lm.residual import SiteEdit, edit, read
from trimtab.lm.sites import BLOCKS, check_site, layers, width
from trimtab.spec import Scope, Site
from trimtab.testing.models import ARCHITECTURES, byte_tokenizer, tiny_model

FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "language_model.norm")


def final_norm(hf: nn.Module) -> nn.Module:
    modules = dict(hf.base_model.named_modules())
    return next(modules[name] for name in FINAL_NORM if name in modules)


def test_every_known_architecture_is_tested():
    assert set(ARCHITECTURES) == set(BLOCKS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_read_equals_the_hidden_states_of_transformers(architecture):
    model = tiny_model(architecture)
    ids, mask = model.pad([model.encode("the cat sat on"), model.encode("on")])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    sites = [Site(layer=i) for i in range(-1, model.n_layers)]
    ours = read(model, ids, sites, mask)
    with torch.no_grad():
        theirs = model.hf(
            input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True
        ).hidden_states
    real = mask.bool()
    assert len(theirs) == len(sites) == model.n_layers + 1
    for site, hidden in zip(sites[:-1], theirs[:-1], strict=True):
        assert ours[site].shape == (*ids.shape, width(model.hf))
        assert torch.equal(ours[site][real], hidden[real])
    # transformers reports the last entry after the final norm, and so not the stream itself.
    last = ours[sites[-1]]
    assert torch.equal(final_norm(model.hf)(last)[real], theirs[-1][real])
    assert not torch.allclose(last[real], theirs[-1][real])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_shows_in_the_hidden_states_of_transformers(architecture):
    model = tiny_model(architecture)
    ids = torch.tensor([model.encode("abc")])
    vector = torch.linspace(-1, 1, model.d_model)
    plain = model.hf(ids, output_hidden_states=True).hidden_states
    for layer in (-1, 0, 1):
        change = SiteEdit(Site(layer=layer), Scope(bos=True), None, lambda h: vector.expand_as(h))
        with edit(model, [change]):
            steered = model.hf(ids, output_hidden_states=True).hidden_states
        for before in range(layer + 1):
            assert torch.equal(steered[before], plain[before])
        if (architecture, layer) != ("gpt_neo", -1):  # GPT-Neo notes its embeddings before block 0 is called
            torch.testing.assert_close(steered[layer + 1], plain[layer + 1] + vector)
        assert not torch.allclose(steered[layer + 2], plain[layer + 2])


def test_reading_stops_after_the_last_site(tiny):
    calls = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: calls.append(i) and None) for i, block in enumerate(tiny.blocks)
    ]
    try:
        read(tiny, torch.tensor([[1, 5, 6]]), [Site(layer=1), Site(layer=-1)])
    finally:
        for handle in handles:
            handle.remove()
    assert calls == [0, 1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_what_is_read(gpt2, side):
    texts = ["the longest of these texts", "short", "x"]
    rows = [gpt2.encode(text) for text in texts]
    ids, mask = gpt2.pad(rows, side=side)
    together = read(gpt2, ids, [2], mask)[Site(layer=2)]
    for i, row in enumerate(rows):
        alone = read(gpt2, torch.tensor([row]), [2])[Site(layer=2)]
        torch.testing.assert_close(together[i][mask[i].bool()], alone[0], rtol=1e-5, atol=1e-6)


def test_unknown_architecture_says_how_to_name_the_blocks():
    hf = tiny_model("llama").hf
    hf.config.model_type = "novel"
    with pytest.raises(InputError, match=r"'novel' is not known.*gemma3.*blocks='model.layers'"):
        layers(hf)
    assert layers(hf, "model.layers") == tuple(hf.model.layers)
    model = wrap(hf, byte_tokenizer(), "novel", blocks="model.layers")
    assert model.n_layers == 3


@pytest.mark.parametrize(("path", "why"), [("model.blocks", "is not there"), ("model.norm", "not a list of blocks")])
def test_wrongly_named_blocks_are_refused(path, why):
    with pytest.raises(InputError, match=rf"'{path}'.*{why}.*blocks='model.layers'"):
        layers(tiny_model("llama").hf, path)


def test_encoder_decoder_models_are_refused():
    hf = tiny_model("llama").hf
    hf.config.is_encoder_decoder = True
    with pytest.raises(UnsupportedError, match="encoder-decoder"):
        layers(hf)


@pytest.mark.parametrize("site", [3, "model.layers.3.output", "blocks.4.hook_resid_pre"])
def test_a_site_beyond_the_last_block_is_refused(tiny, site):
    with pytest.raises(InputError, match=r"model.layers.3.output.*0 to 2, or -1"):
        check_site(site, tiny.n_layers)
    with pytest.raises(InputError, match="0 to 2"):
        read(tiny, torch.tensor([[1, 2]]), [site])


def test_sites_by_the_names_of_transformer_lens(tiny):
    assert check_site("blocks.0.hook_resid_pre", 3) == Site(layer=-1)
    assert check_site("blocks.2.hook_resid_post", 3) == Site(layer=2)


def test_blocks_that_the_forward_pass_never_runs_are_an_error():
    model = tiny_model("llama")
    model.hf.spare = nn.ModuleList([nn.Linear(16, 16)])
    wrong = wrap(model.hf, model.tokenizer, "tiny", blocks="spare")
    with pytest.raises(UnsupportedError, match=r"never reached model.layers.0.output"):
        read(wrong, torch.tensor([[1, 2]]), [0])
