"""Random SAEs of every kind: poor ones on purpose, since no identity of steering may depend on a good one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from trimtab.lm.load import Model
from trimtab.sae.sae import SAE
from trimtab.spec import Site
from trimtab.testing.models import tiny_model

WIDTH, FEATURES = 16, 40
SaeMaker = Callable[..., SAE]


@pytest.fixture(autouse=True)
def _same_random_numbers_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def make_sae() -> SaeMaker:
    def make(
        architecture: str = "jumprelu",
        *,
        normalisation: str = "none",
        layer: int = 1,
        seed: int = 0,
        width: int = WIDTH,
        features: int = FEATURES,
        max_act: bool = True,
        model_name: str | None = None,
    ) -> SAE:
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=draw)

        special = {
            "standard": {},
            "topk": {"k": min(8, features)},
            "jumprelu": {"threshold": normal(features).abs()},
            "gated": {"gain": normal(features).exp(), "b_mag": normal(features)},
        }[architecture]
        return SAE(
            name=f"random-{architecture}-{seed}",
            architecture=architecture,  # type: ignore[arg-type]
            site=Site(layer=layer),
            model_name=model_name,
            W_enc=normal(width, features),
            b_enc=normal(features),
            W_dec=normal(features, width),
            b_dec=normal(width),
            normalisation=normalisation,  # type: ignore[arg-type]
            max_act=normal(features).abs() + 0.5 if max_act else None,
            **special,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A random model of the width of `make_sae`, three blocks deep."""
    return tiny_model("gemma3_text", d_model=WIDTH, n_layers=3)


@pytest.fixture
def h() -> torch.Tensor:
    """A residual stream [4 rows, 6 tokens, d]."""
    return 3 * torch.randn(4, 6, WIDTH, generator=torch.Generator().manual_seed(7))
