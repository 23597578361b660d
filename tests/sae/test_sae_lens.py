"""Parity with sae_lens: the same numbers from the same folders; its registry through a fake of the hub's cache.

One file, because importing sae_lens takes many seconds.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trimtab.errors import FileError, UnsupportedError
from trimtab.sae import registry
from trimtab.sae.load import open_sae
from trimtab.sae.sae import SAE
from trimtab.spec import Site

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import sae_lens
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )

D, N, K = 16, 64, 7
RUN_TIME = ("none", "layer_norm", "constant_norm_rescale")
ABOUT = {"model_name": "gpt2-small", "hook_name": "blocks.8.hook_resid_pre"}
X = 4 * torch.randn(3, 20, D, generator=torch.Generator().manual_seed(1)) + 1


def their_sae(architecture: str, normalisation: str, apply_b_dec: bool, rescale: bool = False) -> Any:
    cfg = {
        "architecture": architecture,
        "d_in": D,
        "d_sae": N,
        "normalize_activations": normalisation,
        "apply_b_dec_to_input": apply_b_dec,
        "metadata": ABOUT,
    }
    if architecture == "topk":
        cfg |= {"k": K, "rescale_acts_by_decoder_norm": rescale}
    return randomised(sae_lens.SAE.from_dict(cfg))


def randomised(sae: Any) -> Any:
    """Every parameter drawn anew, decoder rows of different lengths; thresholds positive."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(sae.named_parameters()):
            drawn = torch.randn(parameter.shape, generator=g) * (0.5 if name == "r_mag" else 1)
            parameter.copy_(drawn.abs() if name == "threshold" else drawn)
    return sae


@torch.no_grad()
def assert_same(ours: SAE, theirs: Any, x: Tensor = X) -> None:
    """Activations and reconstructions within 1e-5 of their largest value."""
    f = theirs.encode(x)
    out = theirs.decode(f)
    assert (f > 0).any()
    assert (f == 0).any()
    for mine, other in ((ours.encode(x), f), (ours.reconstruct(x), out)):
        assert float((mine - other).abs().max()) <= 1e-5 * float(other.abs().max())
    chosen = ours.latents([5, 40])
    assert float((chosen.encode(x) - f[..., [5, 40]]).abs().max()) <= 1e-5 * float(f.abs().max())


@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize("normalisation", RUN_TIME)
@pytest.mark.parametrize("architecture", ["standard", "topk", "topk rescaled", "jumprelu", "gated"])
def test_same_numbers(tmp_path: Path, architecture: str, normalisation: str, apply_b_dec: bool) -> None:
    kind, _, rescaled = architecture.partition(" ")
    their_sae(kind, normalisation, apply_b_dec, bool(rescaled)).save_model(tmp_path)
    ours = open_sae(tmp_path)
    assert ours.architecture == kind
    assert ours.site == Site(layer=7)
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path))


@pytest.mark.parametrize("architecture", ["standard", "topk", "topk rescaled", "jumprelu", "gated"])
def test_same_numbers_with_the_input_factor_folded(tmp_path: Path, architecture: str) -> None:
    kind, _, rescaled = architecture.partition(" ")
    theirs = their_sae(kind, "expected_average_only_in", True, bool(rescaled))
    theirs.save_model(tmp_path)
    theirs.fold_activation_norm_scaling_factor(0.37)
    assert_same(open_sae(tmp_path, norm_factor=0.37), theirs)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_same_folding_of_decoder_norms(tmp_path: Path, architecture: str) -> None:
    theirs = their_sae(architecture, "none", True)
    theirs.save_model(tmp_path)
    theirs.fold_W_dec_norm()
    assert_same(open_sae(tmp_path).folded(), theirs)


@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("matryoshka", [True, False])
def test_same_numbers_after_training(tmp_path: Path, matryoshka: bool, rescale: bool, normalisation: str) -> None:
    shared: dict[str, Any] = {
        "d_in": D,
        "d_sae": N,
        "k": K,
        "rescale_acts_by_decoder_norm": rescale,
        "normalize_activations": normalisation,
    }
    if matryoshka:
        training: Any = MatryoshkaBatchTopKTrainingSAE(
            MatryoshkaBatchTopKTrainingSAEConfig(**shared, matryoshka_widths=[16, N])
        )
    else:
        training = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shared))
    randomised(training)
    training.topk_threshold.fill_(3.0)
    for name, value in ABOUT.items():
        training.cfg.metadata[name] = value
    training.save_inference_model(tmp_path / "inference")
    ours = open_sae(tmp_path / "inference")
    assert ours.architecture == "jumprelu"
    assert_same(ours, sae_lens.SAE.load_from_disk(tmp_path / "inference"))
    training.save_model(tmp_path / "checkpoint")
    checkpoint = open_sae(tmp_path / "checkpoint")
    torch.testing.assert_close(checkpoint.encode(X), ours.encode(X), atol=1e-4, rtol=1e-4)


def test_same_numbers_from_before_version_6(tmp_path: Path) -> None:
    theirs = their_sae("topk", "none", True)
    theirs.save_model(tmp_path)
    flat = {
        "d_in": D,
        "d_sae": N,
        "dtype": "float32",
        "hook_point": "blocks.8.hook_resid_pre",
        "model_name": "gpt2-small",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "normalize_activations": "layer_norm",
    }
    (tmp_path / "cfg.json").write_text(json.dumps(flat))
    assert_same(open_sae(tmp_path), sae_lens.SAE.load_from_disk(tmp_path))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client; the network is off for all tests."""
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(hub: Path, repo: str, folder: str) -> Path:
    """A folder in the one cached snapshot of `repo`, laid out as the hub's client does."""
    base = hub / f"models--{repo.replace('/', '--')}"
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text("0" * 40)
    path = base / "snapshots" / ("0" * 40) / folder
    path.mkdir(parents=True)
    return path


def scope_weights(lower: bool) -> dict[str, Tensor]:
    sae = their_sae("jumprelu", "none", False)
    state = {name: tensor.detach().clone() for name, tensor in sae.state_dict().items()}
    return {name.replace("W_", "w_") if lower else name: tensor for name, tensor in state.items()}


def test_registry_name_of_a_saelens_release(hub: Path) -> None:
    path = cached(hub, "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre")
    theirs = their_sae("standard", "none", True)
    theirs.save_model(path)
    flat = {
        "d_in": D,
        "d_sae": N,
        "dtype": "torch.float32",
        "model_name": "gpt2-small",
        "hook_point": "blocks.8.hook_resid_pre",
        "device": "mps",
    }
    (path / "cfg.json").write_text(json.dumps(flat))
    ours = open_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre")
    assert (ours.site, ours.model_name) == (Site(layer=7), "gpt2-small")
    assert ours.name == "gpt2-small-res-jb/blocks.8.hook_resid_pre"
    assert_same(ours, theirs)
    apart = open_sae("blocks.8.hook_resid_pre", release="gpt2-small-res-jb")
    assert (apart.fingerprint, apart.name) == (ours.fingerprint, ours.name)
    assert_same(ours, sae_lens.SAE.from_pretrained("gpt2-small-res-jb", "blocks.8.hook_resid_pre"))


@pytest.mark.parametrize("with_config", [True, False])
def test_registry_name_of_gemma_scope_2(hub: Path, with_config: bool) -> None:
    path = cached(hub, "google/gemma-scope-2-270m-pt", "resid_post/layer_12_width_16k_l0_medium")
    save_file(scope_weights(lower=True), path / "params.safetensors")
    if with_config:
        about = {
            "architecture": "jump_relu",
            "model_name": "gemma-v3-270m-pt",
            "hf_hook_point_in": "model.layers.12.output",
        }
        (path / "config.json").write_text(json.dumps(about))
    ours = open_sae("gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_medium")
    assert ours.site == Site(layer=12)
    assert ours.model_name is not None
    assert ours.model_name.removesuffix("-pt") == "gemma-3-270m"
    assert_same(ours, their_sae("jumprelu", "none", False))


def test_registry_name_of_gemma_scope(hub: Path) -> None:
    sae_id = "layer_20/width_16k/average_l0_71"
    path = cached(hub, "google/gemma-scope-2b-pt-res", sae_id)
    np.savez(path / "params.npz", **{name: tensor.numpy() for name, tensor in scope_weights(lower=False).items()})
    ours = open_sae(f"gemma-scope-2b-pt-res/{sae_id}")
    assert (ours.site, ours.model_name) == (Site(layer=20), "gemma-2-2b")
    assert_same(ours, their_sae("jumprelu", "none", False))


def test_repository_that_is_not_in_the_registry(hub: Path) -> None:
    theirs = their_sae("gated", "layer_norm", True)
    theirs.save_model(cached(hub, "someone/saes", "gpt2/layer_7"))
    assert_same(open_sae("someone/saes/gpt2/layer_7"), theirs)
    assert_same(open_sae("gpt2/layer_7", release="someone/saes"), theirs)


def test_what_is_not_in_the_cache_cannot_be_fetched_offline(hub: Path) -> None:
    with pytest.raises(
        FileError, match=r"'gpt2-small-res-jb/blocks.8.hook_resid_pre' could not be fetched from jbloom/"
    ):
        open_sae("gpt2-small-res-jb/blocks.8.hook_resid_pre")
    with pytest.raises(FileError, match="could not be fetched from google/gemma-scope-2-270m-pt/resid_post/layer_12"):
        open_sae("gemma-scope-2-270m-pt-res/layer_12_width_16k_l0_medium")


@pytest.mark.parametrize(
    "release",
    ["gpt2-small-hook-z-kk", "llama_scope_lxm_8x", "gemma-scope-2-270m-pt-att", "gpt2-small-resid-mid-v5-32k"],
)
def test_registry_sae_of_another_place_is_refused_before_it_is_fetched(hub: Path, release: str) -> None:
    sae_id = next(iter(registry.releases()[release].paths))
    with pytest.raises(UnsupportedError, match="reads another place than the residual stream"):
        open_sae(f"{release}/{sae_id}")


def test_another_place_that_only_the_configuration_tells_is_refused(hub: Path) -> None:
    theirs = their_sae("standard", "none", True)
    theirs.cfg.metadata.hook_name = "blocks.0.attn.hook_z"
    theirs.save_model(cached(hub, "someone/saes", "gpt2/attention"))
    with pytest.raises(UnsupportedError, match=r"cannot be used: it reads 'blocks.0.attn.hook_z'"):
        open_sae("someone/saes/gpt2/attention")
