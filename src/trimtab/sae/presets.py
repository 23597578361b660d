"""Settings of `trimtab train` that belong together."""

from __future__ import annotations

from collections.abc import Mapping

PRESETS: Mapping[str, Mapping[str, str | int | float]] = {
    # The shape of the SAE behind the TinyStories feature reports (Ehrenborg 2024): the residual after the second block
    # of a model 768 wide, 10,000 features. That one was a ReLU SAE with an L1 penalty; BatchTopK needs no penalty to be
    # found by trial, so it is what a first run should use. `--architecture standard --sparsity X` is the other.
    "tinystories-33m": {
        "model_name": "roneneldan/TinyStories-33M",
        "layer": 1,
        "width": 10_000,
        "architecture": "batchtopk",
        "k": 32,
        "tokens": 4_000_000,
        "samples": 8_000_000,
        "context": 256,
    },
}
"""Values by the names of `trimtab train`'s arguments; those of `TrainSpec`, and `model_name`."""
