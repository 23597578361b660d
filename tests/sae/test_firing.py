"""What fires, found by a screen in bfloat16: exactly what the dense encoder says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from trimtab.errors import InputError
from trimtab.sae import firing
from trimtab.sae.firing import finder
from trimtab.sae.sae import SAE
from trimtab.spec import Site


def made(architecture: str, features: int, width: int, **more: Any) -> SAE:
    generator = torch.Generator().manual_seed(features)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    extra = {
        "jumprelu": {"threshold": draw(features).abs() * 3},
        "gated": {"gain": draw(features).exp(), "b_mag": draw(features)},
        "topk": {"k": 3},
        "standard": {},
    }[architecture]
    W_enc = draw(width, features) * torch.logspace(-2, 1, features)
    tensors = {"W_enc": W_enc, "b_enc": draw(features) - 2, "W_dec": draw(features, width), "b_dec": draw(width)}
    return SAE("made", architecture, Site(layer=1), None, **tensors, **(extra | more))  # type: ignore[arg-type]


def residuals(rows: int, width: int) -> Tensor:
    """Of many sizes, with one direction far larger than the others, as in real models."""
    generator = torch.Generator().manual_seed(rows)
    h = torch.randn(rows, width, generator=generator) * torch.logspace(-2, 3, rows)[:, None]
    h[:, 0] *= 50
    return h


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated"])
@pytest.mark.parametrize(("features", "width"), [(64, 24), (37, 16), (5, 8)])
@pytest.mark.parametrize("normalisation", ["none", "layer_norm"])
def test_the_screen_finds_what_the_encoder_finds(
    architecture: str, features: int, width: int, normalisation: str
) -> None:
    sae = made(architecture, features, width, normalisation=normalisation)
    h = residuals(300, width)  # more rows than one piece
    row, feature, value = finder(sae, screen=True)(h)
    f = sae.encode(h)
    found = torch.zeros_like(f)
    found[row, feature] = value
    size = h.norm(dim=1)[:, None] * sae.W_enc.norm(dim=0) if normalisation == "none" else sae.W_enc.norm(dim=0) * width
    assert ((found - f).abs() <= 1e-5 * size + 1e-5).all()
    assert value.dtype == torch.float32
    assert (value > 0).all()
    place = row * features + feature
    assert (place.diff() > 0).all()
    assert 0.02 < len(value) / f.numel() < 0.9


def test_nothing_that_fires_is_missed_however_close_to_the_threshold() -> None:
    """Whole numbers are exact in float32, so firing is decided exactly: pre-activations one above and one below."""
    width, features = 512, 40
    generator = torch.Generator().manual_seed(0)
    W_enc = torch.randint(-999, 1000, (width, features), generator=generator).float()
    h = torch.randint(-30, 31, (features, width), generator=generator).float()
    own = (h.double() @ W_enc.double()).diagonal().float().abs()  # the bfloat16 product is off by hundreds
    W_enc = W_enc * (h.double() @ W_enc.double()).diagonal().sign().float()
    for over, fires in ((-1, True), (0, False), (1, False)):
        tensors = {"W_enc": W_enc, "b_enc": torch.zeros(features), "W_dec": W_enc.T, "b_dec": torch.zeros(width)}
        sae = SAE("made", "jumprelu", Site(layer=1), None, **tensors, threshold=own + over)
        row, feature, value = finder(sae, screen=True)(h)
        mine = feature[row == feature]
        assert mine.tolist() == (list(range(features)) if fires else [])
        assert value[row == feature].tolist() == (own.tolist() if fires else [])


def test_the_bound_is_what_makes_it_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the columns that add the rounding error, the screen would miss some."""
    sae, h = made("jumprelu", 64, 24), residuals(300, 24)
    whole = len(finder(sae, screen=True)(h)[0])
    monkeypatch.setattr(firing, "_UP", 0.0)
    assert len(finder(sae, screen=True)(h)[0]) < whole


def test_features_that_never_fire_and_no_rows_at_all() -> None:
    sae = made("jumprelu", 16, 8, threshold=torch.full((16,), torch.inf))
    for screen in (True, False):
        assert len(finder(sae, screen=screen)(residuals(20, 8))[0]) == 0
        assert [len(part) for part in finder(sae, screen=screen)(torch.zeros(0, 8))] == [0, 0, 0]
    with pytest.raises(InputError, match="width 8"):
        finder(sae, screen=True)(torch.zeros(2, 9))


def test_topk_is_encoded_whole() -> None:
    sae, h = made("topk", 16, 8), residuals(20, 8)
    row, feature, value = finder(sae)(h)
    f = sae.encode(h)
    assert torch.equal(f[row, feature], value)
    assert len(value) == int((f > 0).sum())
