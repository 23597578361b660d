"""The SAE as a value: its maths against plain loops, what it refuses, and that nothing is remembered or changed."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.errors import InputError, UnsupportedError
from trimtab.sae.sae import SAE
from trimtab.spec import Site

D, N = 8, 24
ARCHITECTURES = ("standard", "topk", "jumprelu", "gated")
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale", "sequence")


def random_sae(architecture: str = "jumprelu", seed: int = 0, **changes: Any) -> SAE:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    values: dict[str, Any] = {
        "name": "random",
        "architecture": architecture,
        "site": Site(layer=1),
        "model_name": "tiny",
        "W_enc": draw(D, N),
        "b_enc": 0.3 * draw(N),
        "W_dec": draw(N, D),
        "b_dec": draw(D),
        "threshold": draw(N).abs() if architecture == "jumprelu" else None,
        "k": 5 if architecture == "topk" else None,
        "gain": draw(N).exp() if architecture == "gated" else None,
        "b_mag": draw(N) if architecture == "gated" else None,
    }
    return SAE(**{**values, **changes})


def residual(*shape: int, seed: int = 1) -> Tensor:
    return 3 * torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)) + 0.5


def naive_encode(sae: SAE, x: Tensor) -> list[float]:
    """One position, one feature at a time, in Python numbers."""
    x_in = [float(x[j] - (sae.b_dec[j] if sae.apply_b_dec_to_input else 0)) for j in range(sae.d_in)]
    product = [sum(x_in[j] * float(sae.W_enc[j, i]) for j in range(sae.d_in)) for i in range(sae.d_sae)]
    pre = [product[i] + float(sae.b_enc[i]) for i in range(sae.d_sae)]
    if sae.architecture == "gated":
        assert sae.gain is not None
        assert sae.b_mag is not None
        size = [max(0.0, product[i] * float(sae.gain[i]) + float(sae.b_mag[i])) for i in range(sae.d_sae)]
        return [size[i] if pre[i] > 0 else 0.0 for i in range(sae.d_sae)]
    if sae.architecture == "topk":
        cut = sorted(pre)[-(sae.k or 0)]
        return [max(0.0, p) if p >= cut else 0.0 for p in pre]
    cuts = [0.0] * sae.d_sae if sae.threshold is None else sae.threshold.tolist()
    return [max(0.0, p) if p > cut else 0.0 for p, cut in zip(pre, cuts, strict=True)]


@pytest.mark.parametrize("apply_b_dec", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_encode_and_decode_are_the_published_formulas(architecture: str, apply_b_dec: bool) -> None:
    sae = random_sae(architecture, apply_b_dec_to_input=apply_b_dec)
    x = residual(6)
    expected = torch.tensor([naive_encode(sae, row) for row in x])
    assert (expected > 0).any()
    assert (expected == 0).any()
    torch.testing.assert_close(sae.encode(x), expected)
    torch.testing.assert_close(sae.reconstruct(x), expected @ sae.W_dec + sae.b_dec)


def test_topk_keeps_k_features_and_relu_keeps_more() -> None:
    x = residual(50)
    kept = random_sae("topk").encode(x)
    assert (kept > 0).sum(-1).max() == 5
    assert (random_sae("standard").encode(x) > 0).sum(-1).min() > 5


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_scale_undoes_the_normalisation(normalisation: str) -> None:
    sae = random_sae(normalisation=normalisation, apply_b_dec_to_input=False)
    x = residual(2, 7)
    x_in, scale = sae.normalise(x)
    assert torch.equal(x_in, x) == (normalisation == "none")
    torch.testing.assert_close(x_in * scale.factor + scale.shift, x, atol=1e-4, rtol=1e-4)


def test_sequence_normalisation_is_over_the_whole_text() -> None:
    sae = random_sae(normalisation="sequence", apply_b_dec_to_input=False)
    x = residual(2, 7)
    text = x[0]
    plain = (text - text.mean()) / text.std() * math.sqrt(D)
    torch.testing.assert_close(sae.normalise(x)[0][0], plain)
    assert not torch.allclose(sae.encode(text)[:3], sae.encode(text[:3]))  # so the rest of the text matters
    assert not sae.positionwise
    assert random_sae(normalisation="layer_norm").positionwise


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_kept_between_calls(architecture: str, normalisation: str) -> None:
    sae = random_sae(architecture, normalisation=normalisation)
    first, other = residual(2, 5, seed=1), 100 * residual(2, 5, seed=2)
    f, scale = sae.encode(first), sae.scale(first)
    alone = sae.decode(f, scale)
    sae.encode(other)
    sae.normalise(other)
    assert torch.equal(sae.decode(f, scale), alone)
    assert torch.equal(sae.reconstruct(first), alone)


def test_decode_needs_the_scale_when_the_input_was_normalised() -> None:
    sae = random_sae(normalisation="layer_norm")
    with pytest.raises(UnsupportedError, match=r"normalises each input \(layer_norm\).*reconstruct"):
        sae.decode(sae.encode(residual(3)))


def test_a_row_is_not_what_a_lone_feature_decodes_to() -> None:
    """The trap: decode(onehot) is the row plus the decoder's bias."""
    sae = random_sae()
    onehot = torch.zeros(N)
    onehot[7] = 1.0
    row = sae.rows([7])[0]
    assert torch.equal(row, sae.W_dec[7])
    assert not torch.allclose(sae.decode(onehot), row)
    torch.testing.assert_close(sae.decode(onehot) - sae.b_dec, row)
    f = sae.encode(residual(1))
    torch.testing.assert_close(sae.decode(f + 2.5 * onehot) - sae.decode(f), 2.5 * row[None], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_are_those_columns_of_the_full_encoder(architecture: str, normalisation: str) -> None:
    sae = random_sae(architecture, normalisation=normalisation)
    h = residual(3, 5)
    chosen = sae.latents([9, 2, 2, 17])
    torch.testing.assert_close(chosen.encode(h), sae.encode(h)[..., [9, 2, 2, 17]])
    assert torch.equal(chosen.rows, sae.W_dec[[9, 2, 2, 17]])
    assert sae.latents([]).encode(h).shape == (3, 5, 0)


def test_latents_of_all_but_topk_cost_only_their_columns() -> None:
    for architecture in ARCHITECTURES:
        width = random_sae(architecture).latents([3, 4]).sae.d_sae
        assert width == (N if architecture == "topk" else 2)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_move_is_the_change_of_the_reconstruction(normalisation: str) -> None:
    sae = random_sae("standard", normalisation=normalisation)
    h = residual(2, 5)
    change = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(3))
    f, scale = sae.encode(h), sae.scale(h)
    moved = f.clone()
    moved[..., [4, 11]] += change
    expected = sae.decode(moved, scale) - sae.decode(f, scale)
    torch.testing.assert_close(sae.latents([4, 11]).move(h, change), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
def test_folding_keeps_reconstructions_and_scales_thresholds(architecture: str) -> None:
    sae = random_sae(architecture, max_act=torch.rand(N))
    folded, x = sae.folded(), residual(40)
    norms = sae.W_dec.norm(dim=1)
    torch.testing.assert_close(folded.W_dec.norm(dim=1), torch.ones(N))
    torch.testing.assert_close(folded.encode(x), sae.encode(x) * norms)
    torch.testing.assert_close(folded.reconstruct(x), sae.reconstruct(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.max_act, sae.max_act * norms)  # type: ignore[operator]


def test_folding_is_refused_for_topk_and_leaves_empty_rows_alone() -> None:
    with pytest.raises(UnsupportedError, match="other features would be selected"):
        random_sae("topk").folded()
    W_dec = random_sae().W_dec.clone()
    W_dec[3] = 0
    folded = random_sae(W_dec=W_dec).folded()
    assert torch.equal(folded.W_dec[3], torch.zeros(D))
    assert folded.encode(residual(4)).isfinite().all()


def test_half_precision_residuals_are_computed_in_float32() -> None:
    sae = random_sae()
    x = residual(5).bfloat16()
    assert torch.equal(sae.encode(x), sae.encode(x.float()))
    assert sae.encode(x).dtype == torch.float32


def test_an_sae_never_changes() -> None:
    sae = random_sae("gated", normalisation="layer_norm", max_act=torch.rand(N))
    before = {f.name: v.clone() for f in fields(sae) if isinstance(v := getattr(sae, f.name), Tensor)}
    x = residual(3)
    sae.reconstruct(x)
    sae.latents([1, 2]).move(x, sae.latents([1, 2]).encode(x))
    sae.folded()
    sae.rows([0]).mul_(100)
    sae.latents([0]).rows.mul_(100)
    for name, value in before.items():
        assert torch.equal(getattr(sae, name), value), name
    with pytest.raises(FrozenInstanceError):
        sae.k = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (24, "Feature 24 is out of range: this SAE has 24 features, 0 to 23."),
        (-1, "Feature -1 is out of range: this SAE has 24 features, 0 to 23."),
        (1.0, "A feature is a whole number, not 1.0."),
        (True, "A feature is a whole number, not True."),
        ("3", "A feature is a whole number, not '3'."),
    ],
)
def test_a_feature_that_is_not_there_is_named(index: Any, message: str) -> None:
    sae = random_sae()
    for use in (sae.rows, sae.latents, sae.features):
        with pytest.raises(InputError) as error:
            use([0, index])
        assert str(error.value) == message


def test_features_may_be_tensors_and_arrays() -> None:
    import numpy as np

    assert random_sae().features(torch.tensor([3, 1])) == (3, 1)
    assert random_sae().features(np.array([3, 1])) == (3, 1)


def test_a_residual_of_another_width_is_refused() -> None:
    with pytest.raises(InputError, match="width 7; the SAE 'random' reads width 8"):
        random_sae().encode(torch.zeros(2, 7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W_enc": torch.zeros(N, D)}, r"W_enc has shape \[24, 8\]; with 24 features of width 8 it must be \[8, 24\]"),
        ({"b_dec": torch.zeros(N)}, r"b_dec has shape \[24\].*must be \[8\]"),
        ({"W_dec": torch.full((N, D), math.nan)}, "W_dec has 192 values that are NaN or infinite"),
        ({"b_enc": torch.full((N,), math.inf)}, "b_enc has 24 values that are NaN or infinite"),
        ({"W_enc": torch.zeros(D, N, dtype=torch.bfloat16)}, "W_enc has dtype torch.bfloat16"),
        ({"threshold": None}, "A jumprelu SAE needs threshold"),
        ({"architecture": "crosscoder"}, "Unknown architecture 'crosscoder'. Valid: standard, topk, jumprelu, gated"),
        ({"normalisation": "batch"}, "Unknown normalisation 'batch'. Valid: none, layer_norm"),
        ({"k": 25}, "k is 25; with 24 features it must be 1 to 24"),
    ],
)
def test_malformed_weights_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        random_sae(**change)


def test_a_threshold_of_infinity_switches_a_feature_off() -> None:
    threshold = torch.zeros(N)
    threshold[5] = math.inf
    f = random_sae(threshold=threshold).encode(residual(200))
    assert (f[:, 5] == 0).all()
    assert (f > 0).any(0).sum() > N // 2


def test_the_fingerprint_is_of_weights_and_use_not_of_name_and_measurements() -> None:
    sae = random_sae()
    assert sae.fingerprint == random_sae().fingerprint
    same = replace(sae, name="other", max_act=torch.ones(N), density=torch.ones(N), card={"fvu": 0.1})
    assert same.fingerprint == sae.fingerprint
    nudged = sae.W_dec.clone()
    nudged[-1, -1] += 1e-3
    changes: list[dict[str, Any]] = [
        {"W_dec": nudged},
        {"b_dec": sae.b_dec + 1},
        {"threshold": torch.zeros(N)},
        {"site": Site(layer=2)},
        {"apply_b_dec_to_input": False},
        {"normalisation": "layer_norm"},
    ]
    prints = {replace(sae, **change).fingerprint for change in changes}
    assert len(prints | {sae.fingerprint}) == len(changes) + 1
