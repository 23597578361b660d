"""A tiny model and an SAE of it, saved to disk, so that commands run as people run them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner, Result

from trimtab.cli import app
from trimtab.testing.models import tiny_model

WIDTH, FEATURES, LAYER = 16, 24, 1
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    """Run `trimtab` with these words."""

    def call(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], prog_name="trimtab")

    return call


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model = tiny_model("gemma3_text", d_model=WIDTH, context=64)
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sae(tmp_path_factory.mktemp("saes") / "own", "tiny", WIDTH)


@pytest.fixture(scope="session")
def foreign_sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sae(tmp_path_factory.mktemp("saes") / "foreign", "some-other-model", WIDTH)


def save_sae(folder: Path, model_name: str, width: int) -> Path:
    """A random standard SAE in SAELens' layout, with maximum activations."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(width, FEATURES, generator=generator),
        "b_enc": torch.zeros(FEATURES),
        "W_dec": torch.nn.functional.normalize(torch.randn(FEATURES, width, generator=generator)),
        "b_dec": torch.randn(width, generator=generator),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    save_file(
        {"max_act": torch.full((FEATURES,), 5.0), "density": torch.full((FEATURES,), 0.1)},
        folder / "features.safetensors",
    )
    about = {"model_name": model_name, "hook_name": f"blocks.{LAYER}.hook_resid_post"}
    config = {
        "architecture": "standard", "d_in": width, "d_sae": FEATURES, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "metadata": about,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def card() -> dict[str, Any]:
    """What `trimtab train` writes about an SAE."""
    return {
        "trained": {
            "distinct_tokens": 8_000_000,
            "samples": 12_000_000,
            "tokens_per_second_model": 4000,
            "samples_per_second_sae": 7000,
        },
        "feature_tokens": 1_000_000,
        "alive": 0.95,
        "heldout": ["val.jsonl"],
        "reconstruction_tokens": 100_000,
        "fvu": 0.0912,
        "fvu_without_largest_dimension": 0.2,
        "l0": 32.0,
        "loss_tokens": 16_000,
        "ce_clean": 3.9,
        "ce_spliced": 4.1,
        "ce_zero": 23.6,
        "ce_recovered": 0.9898,
        "decoder_max_cosine_mean": 0.5,
    }


@pytest.fixture
def chat_server() -> Iterator[str]:
    """The address of a judge that answers 1 to everything."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"message": {"content": "1"}}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/v1"
        made.shutdown()
        thread.join()
