"""Opening SAEs: every layout on disk gives the right numbers, and every damaged one a sentence."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from trimtab.errors import FileError, InputError, MismatchError, UnsupportedError
from trimtab.sae import load
from trimtab.sae.load import check_fits, list_saes, open_sae
from trimtab.spec import Site

D, N = 8, 24


def weights(*extra: str, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, N), "W_dec": (N, D), "b_dec": (D,)} | dict.fromkeys(extra, (N,))
    return {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}


def config(architecture: str = "jumprelu", **changes: Any) -> dict[str, Any]:
    """SAELens v6."""
    about = {"model_name": "gpt2", "hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.54.12"}
    plain = {
        "d_in": D,
        "d_sae": N,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "architecture": architecture,
    }
    return {**plain, "metadata": about, **changes}


def folder(path: Path, cfg: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cfg.json").write_text(json.dumps(cfg))
    save_file(tensors, path / "sae_weights.safetensors")
    return path


X = 2 * torch.randn(11, D, generator=torch.Generator().manual_seed(5))


def test_saelens_v6_folder(tmp_path: Path) -> None:
    w = weights("b_enc", "threshold")
    path = folder(tmp_path / "mine", config(), w)
    sae = open_sae(path)
    assert (sae.architecture, sae.site, sae.model_name, sae.d_in, sae.d_sae) == (
        "jumprelu",
        Site(layer=1),
        "gpt2",
        D,
        N,
    )
    pre = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    torch.testing.assert_close(sae.encode(X), pre.relu() * (pre > w["threshold"]))
    assert open_sae(path / "sae_weights.safetensors").fingerprint == sae.fingerprint
    assert sae.max_act is None
    assert sae.card == {}


def test_measurements_and_card_beside_the_weights(tmp_path: Path) -> None:
    path = folder(tmp_path, config(), weights("b_enc", "threshold"))
    save_file({"sparsity": torch.full((N,), -2.0)}, path / "sparsity.safetensors")
    density = open_sae(path).density
    assert density is not None
    torch.testing.assert_close(density, torch.full((N,), 0.01))
    save_file({"max_act": torch.arange(N).float(), "density": torch.full((N,), 0.25)}, path / "features.safetensors")
    (path / "card.json").write_text('{"fvu": 0.1}')
    sae = open_sae(path)
    assert sae.max_act is not None
    assert sae.max_act.tolist() == list(range(N))
    assert sae.density is not None
    assert sae.density[3] == 0.25
    assert sae.card == {"fvu": 0.1}


def test_bfloat16_on_disk_is_float32_in_use(tmp_path: Path) -> None:
    w = {name: tensor.bfloat16() for name, tensor in weights("b_enc", "threshold").items()}
    sae = open_sae(folder(tmp_path, config(dtype="bfloat16"), w))
    assert sae.W_dec.dtype == torch.float32
    assert torch.equal(sae.W_dec, w["W_dec"].float())


def test_flat_folder_from_before_version_6_is_topk_not_relu(tmp_path: Path) -> None:
    cfg = {
        "d_in": D,
        "d_sae": N,
        "dtype": "torch.float32",
        "model_name": "gpt2-small",
        "hook_point": "blocks.2.hook_resid_pre",
        "hook_point_layer": 2,
        "activation_fn": "topk",
        "activation_fn_kwargs": {"k": 4},
        "normalize_activations": False,
    }
    sae = open_sae(folder(tmp_path, cfg, weights("b_enc")))
    assert (sae.architecture, sae.k, sae.site) == ("topk", 4, Site(layer=1))
    assert (sae.encode(X) > 0).sum(-1).max() <= 4


def test_a_saved_training_sae_becomes_jumprelu(tmp_path: Path) -> None:
    w = weights("b_enc")
    path = folder(tmp_path, config("batchtopk", k=4), {**w, "topk_threshold": torch.tensor(1.5)})
    sae = open_sae(path)
    norms = w["W_dec"].norm(dim=1)
    pre = ((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]) * norms
    torch.testing.assert_close(sae.encode(X), pre * (pre > 1.5))
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(N))


def test_input_factor_is_folded_from_file_or_argument_and_never_guessed(tmp_path: Path) -> None:
    w = weights("b_enc", "threshold")
    path = folder(tmp_path, config(normalize_activations="expected_average_only_in"), w)
    with pytest.raises(UnsupportedError, match=r"expected_average_only_in.*factor is not in its folder.*norm_factor="):
        open_sae(path)
    given = open_sae(path, norm_factor=0.25)
    pre = (0.25 * X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = pre.relu() * (pre > w["threshold"])
    torch.testing.assert_close(given.encode(X), f)
    torch.testing.assert_close(given.reconstruct(X), (f @ w["W_dec"] + w["b_dec"]) / 0.25)
    (path / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    assert open_sae(path).fingerprint == given.fingerprint
    with pytest.raises(FileError, match=r"the norm factor must be a positive number, not 0.0"):
        open_sae(path, norm_factor=0)


def test_gemma_scope_npz(tmp_path: Path) -> None:
    path = tmp_path / "gemma-scope-2b-pt-res" / "layer_20" / "width_16k" / "average_l0_71"
    path.mkdir(parents=True)
    w = {name: tensor.numpy() for name, tensor in weights("b_enc", "threshold").items()}
    np.savez(path / "params.npz", **w)
    sae = open_sae(path)
    assert (sae.site, sae.model_name, sae.apply_b_dec_to_input) == (Site(layer=20), "gemma-2-2b", False)
    pre = X @ torch.from_numpy(w["W_enc"]) + torch.from_numpy(w["b_enc"])
    torch.testing.assert_close(sae.encode(X), pre.relu() * (pre > torch.from_numpy(w["threshold"])))
    whole = (path / "params.npz").read_bytes()
    (path / "params.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"params.npz \(\d+ kB\) is damaged or incomplete"):
        open_sae(path)


@pytest.mark.parametrize("with_config", [True, False])
def test_gemma_scope_2_safetensors(tmp_path: Path, with_config: bool) -> None:
    path = tmp_path / "gemma-scope-2-270m-pt" / "resid_post" / "layer_9_width_16k_l0_medium"
    path.mkdir(parents=True)
    w = weights("b_enc", "threshold")
    save_file({name.replace("W_", "w_"): tensor for name, tensor in w.items()}, path / "params.safetensors")
    if with_config:
        cfg = {
            "architecture": "jump_relu",
            "model_name": "google/gemma-v3-270m-pt",
            "hf_hook_point_in": "model.layers.9.output",
        }
        (path / "config.json").write_text(json.dumps(cfg))
    sae = open_sae(path)
    assert sae.site == Site(layer=9)
    pre = X @ w["W_enc"] + w["b_enc"]
    torch.testing.assert_close(sae.encode(X), pre.relu() * (pre > w["threshold"]))
    check_fits(sae, Facts("google/gemma-3-270m", D, 18))


def test_gemma_scope_of_another_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gemma-scope-2-270m-pt" / "mlp_out" / "layer_9_width_16k_l0_medium"
    path.mkdir(parents=True)
    save_file({n.replace("W_", "w_"): t for n, t in weights("b_enc", "threshold").items()}, path / "params.safetensors")
    with pytest.raises(UnsupportedError, match="another place than the residual stream"):
        open_sae(path)


def test_sparsify_folder(tmp_path: Path) -> None:
    path = tmp_path / "run" / "layers.3"
    path.mkdir(parents=True)
    w = weights("b_enc")
    stored = {
        "encoder.weight": w["W_enc"].T.contiguous(),
        "encoder.bias": w["b_enc"],
        "W_dec": w["W_dec"],
        "b_dec": w["b_dec"],
    }
    save_file(stored, path / "sae.safetensors")
    cfg: dict[str, Any] = {"activation": "topk", "num_latents": N, "k": 3, "normalize_decoder": True, "d_in": D}
    (path / "cfg.json").write_text(json.dumps(cfg))
    (path.parent / "config.json").write_text('{"model": "EleutherAI/pythia-70m"}')
    sae = open_sae(path)
    assert (sae.architecture, sae.k, sae.site, sae.model_name) == ("topk", 3, Site(layer=3), "EleutherAI/pythia-70m")
    values, places = ((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu().topk(3)
    expected = torch.zeros(len(X), N).scatter(1, places, values)
    torch.testing.assert_close(sae.encode(X), expected)
    torch.testing.assert_close(sae.reconstruct(X), expected @ w["W_dec"] + w["b_dec"])
    (path / "cfg.json").write_text(json.dumps({**cfg, "transcode": True}))
    with pytest.raises(UnsupportedError, match="sparsify coder with transcode"):
        open_sae(path)


def two_layers(path: Path, **changes: Any) -> dict[str, Tensor]:
    w = weights("b_enc")
    state = {
        "encoder_linear.weight": w["W_enc"].T.contiguous(),
        "encoder_linear.bias": w["b_enc"],
        "decoder_linear.weight": w["W_dec"].T.contiguous(),
        "decoder_linear.bias": w["b_dec"],
    }
    torch.save({**state, **changes}, path)
    return w


def test_two_linear_layers_measure_strength(tmp_path: Path) -> None:
    """Activations are f_i * ||d_i|| of the input normalised over the whole text, and rows have length 1."""
    w = two_layers(tmp_path / "sae.pt")
    sae = open_sae(tmp_path / "sae.pt", site=1, model_name="roneneldan/TinyStories-33M")
    assert sae.site == Site(layer=1)
    a = X[None]
    x_in = (a - a.mean()) / a.std() * math.sqrt(D)
    f = torch.nn.functional.linear(x_in, w["W_enc"].T, w["b_enc"]).relu()
    torch.testing.assert_close(sae.encode(a), f * w["W_dec"].norm(dim=1))
    torch.testing.assert_close(sae.rows([6])[0], w["W_dec"][6] / w["W_dec"][6].norm())
    decoded = torch.nn.functional.linear(f, w["W_dec"].T, w["b_dec"])
    torch.testing.assert_close(sae.decode(sae.encode(a)[0], load_scale(x_in)), decoded[0], atol=1e-4, rtol=1e-4)


def load_scale(x_in: Tensor) -> Any:
    """The scale that leaves what was decoded in the SAE's own units."""
    from trimtab.sae.norm import Scale

    return Scale(x_in.new_ones(()), x_in.new_zeros(()))


def test_two_linear_layers_need_a_site_and_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "sae.pt"
    two_layers(path)
    with pytest.raises(FileError, match=r"does not say which layer it reads; pass site="):
        open_sae(path)
    two_layers(path, **{"decoder_linear.bias": Path("/tmp")})
    with pytest.raises(FileError, match=r"holds more than tensors; trimtab does not unpickle it"):
        open_sae(path, site=1)
    torch.save({"encoder_linear.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(FileError, match=r"it lacks encoder_linear.bias, decoder_linear.weight, decoder_linear.bias"):
        open_sae(path, site=1)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match="damaged or incomplete"):
        open_sae(path, site=1)


def test_truncated_weights(tmp_path: Path) -> None:
    path = folder(tmp_path, config(), weights("b_enc", "threshold"))
    file = path / "sae_weights.safetensors"
    whole = file.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(
            FileError, match=r"sae_weights.safetensors \(\d+ kB\) is damaged or incomplete; copy or"
        ) as e:
            open_sae(path)
        assert "\n" not in str(e.value)


def nan() -> Tensor:
    broken = torch.zeros(N, D)
    broken[0, 0] = math.nan
    return broken


@pytest.mark.parametrize(
    ("cfg", "change", "kind", "message"),
    [
        ({}, {"W_dec": nan()}, FileError, "not a usable SAE: W_dec has 1 values that are NaN"),
        (
            {},
            {"W_enc": torch.zeros(D, N, dtype=torch.int8)},
            FileError,
            "W_enc has dtype torch.int8; weights are floating",
        ),
        ({}, {"W_enc": torch.zeros(D + 1, N)}, FileError, r"W_enc has shape \[9, 24\].*must be \[8, 24\]"),
        ({}, {"threshold": None}, FileError, "a jumprelu SAE needs threshold, but the weights hold"),
        ({"architecture": "gated"}, {}, FileError, "a gated SAE needs b_gate, b_mag, r_mag"),
        ({"architecture": "topk"}, {}, FileError, "a TopK SAE needs a whole number k, not None"),
        (
            {"architecture": "temporal"},
            {},
            UnsupportedError,
            "its architecture is 'temporal'; trimtab opens standard, topk",
        ),
        ({"activation_fn": "tanh-relu"}, {}, UnsupportedError, "activation function is 'tanh-relu'"),
        ({"normalize_activations": "covariance_whitening"}, {}, UnsupportedError, "whitening is not folded"),
        ({"normalize_activations": "batch"}, {}, FileError, "Unknown normalisation 'batch'"),
        ({}, {"scaling_factor": torch.full((N,), 2.0)}, UnsupportedError, "finetuning scaling_factor"),
        ({"metadata": {"model_name": "gpt2"}}, {}, FileError, "does not say which layer it reads; pass site="),
        (
            {"metadata": {"hook_name": "blocks.3.attn.hook_z"}},
            {},
            UnsupportedError,
            "reads 'blocks.3.attn.hook_z'; trimtab works on the residual stream",
        ),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, cfg: dict[str, Any], change: dict[str, Tensor | None], kind: type[Exception], message: str
) -> None:
    tensors = {n: t for n, t in {**weights("b_enc", "threshold"), **change}.items() if t is not None}
    path = folder(tmp_path / "odd", {**config(), **cfg}, tensors)
    with pytest.raises(kind, match=message) as error:
        open_sae(path)
    assert str(path) in str(error.value)


def test_missing_and_foreign_folders(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such SAE file or folder: /no/such"):
        open_sae("/no/such")
    with pytest.raises(FileError, match=r"is not an SAE: it holds none of sae_weights.safetensors, sae.safetensors"):
        open_sae(tmp_path)
    folder(tmp_path / "layer_3", config(), weights("b_enc", "threshold"))
    with pytest.raises(FileError, match="Did you mean a folder in it: layer_3"):
        open_sae(tmp_path)
    (tmp_path / "layer_3" / "cfg.json").write_text("{")
    with pytest.raises(FileError, match=r"cfg.json is not a JSON file"):
        open_sae(tmp_path / "layer_3")
    (tmp_path / "layer_3" / "cfg.json").write_text("[]")
    with pytest.raises(FileError, match="should hold a JSON object, not a list"):
        open_sae(tmp_path / "layer_3")
    (tmp_path / "layer_3" / "cfg.json").unlink()
    with pytest.raises(FileError, match=r"No such file: .*cfg.json"):
        open_sae(tmp_path / "layer_3")


def test_the_package_names_its_own_saes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "SHIPPED", tmp_path)
    with pytest.raises(FileError, match="'gemma-3-270m' should be in the package"):
        open_sae("gemma-3-270m")
    folder(tmp_path / "gemma-3-270m", config(), weights("b_enc", "threshold"))
    (tmp_path / "gemma-3-270m" / "card.json").write_text('{"fvu": 0.09}')
    assert open_sae("gemma-3-270m").name == "gemma-3-270m"
    (listed,) = list_saes(tmp_path)
    assert (listed.name, listed.hook_name, listed.d_sae) == ("gemma-3-270m", "blocks.1.hook_resid_post", N)
    assert listed.card == {"fvu": 0.09}


def test_unknown_names_list_close_matches() -> None:
    with pytest.raises(InputError, match=r"Unknown SAE 'gpt2-smal-res-jb/x'.*Close matches: gpt2-small-res-jb"):
        open_sae("gpt2-smal-res-jb/x")
    with pytest.raises(
        InputError, match=r"'gpt2-small-res-jb' has no SAE 'blocks.8.resid_pre'.*blocks.8.hook_resid_pre"
    ):
        open_sae("gpt2-small-res-jb/blocks.8.resid_pre")
    with pytest.raises(InputError, match=r"has no SAE 'blocks.8'"):
        open_sae("blocks.8", release="gpt2-small-res-jb")


@dataclass
class Facts:
    name: str
    d_model: int
    n_layers: int


@pytest.mark.parametrize(
    ("recorded", "used"),
    [
        ("gpt2-small", "gpt2"),
        ("gpt2", "openai-community/gpt2"),
        ("google/gemma-3-270m", "gemma-3-270m"),
        ("google/gemma-3-270m-pt", "gemma-3-270m"),
        ("tiny-stories-33M", "roneneldan/TinyStories-33M"),
        (None, "anything"),
    ],
)
def test_check_fits_compares_names_leniently(tmp_path: Path, recorded: str | None, used: str) -> None:
    cfg = config(metadata={"model_name": recorded, "hook_name": "blocks.1.hook_resid_post"})
    check_fits(open_sae(folder(tmp_path, cfg, weights("b_enc", "threshold"))), Facts(used, D, 2))


def test_check_fits_says_both_sides(tmp_path: Path) -> None:
    path = folder(tmp_path / "s", config(), weights("b_enc", "threshold"))
    sae = open_sae(path)
    with pytest.raises(MismatchError, match=r"was trained on 'gpt2', but the model is 'gemma-3-270m'"):
        check_fits(sae, Facts("gemma-3-270m", D, 12))
    with pytest.raises(MismatchError, match=r"'gpt2', but the model is 'google/gpt2-it'"):
        check_fits(sae, Facts("google/gpt2-it", D, 12))
    with pytest.raises(MismatchError, match="reads width 8, but 'gpt2' has width 16"):
        check_fits(sae, Facts("gpt2", 16, 12))
    with pytest.raises(MismatchError, match=r"reads model.layers.1.output, but 'gpt2' has 1 layers, 0 to 0"):
        check_fits(sae, Facts("gpt2", D, 1))
    check_fits(open_sae(path, model_name="gemma-3-270m"), Facts("gemma-3-270m", D, 12))


def test_check_fits_takes_a_local_folder_at_its_word(tmp_path: Path) -> None:
    sae = open_sae(folder(tmp_path / "s", config(), weights("b_enc", "threshold")))
    for name, fits in (("models--openai-community--gpt2/snapshots/0a1b", True), ("pythia", False)):
        (tmp_path / name).mkdir(parents=True)
        if fits:
            check_fits(sae, Facts(str(tmp_path / name), D, 2))
        else:
            with pytest.raises(MismatchError, match="say so: open_sae"):
                check_fits(sae, Facts(str(tmp_path / name), D, 2))


def test_an_unknown_device_is_named(tmp_path: Path) -> None:
    path = folder(tmp_path, config(), weights("b_enc", "threshold"))
    assert open_sae(path, device="cpu").device.type == "cpu"
    with pytest.raises(InputError, match="cannot be put on device 'abacus'"):
        open_sae(path, device="abacus")
