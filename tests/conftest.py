from __future__ import annotations

import os

# Before transformers or the hub client is imported: no test may touch the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is: on models this small a second thread only waits, and waits busily when the machine has other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from trimtab.lm.load import Model
from trimtab.testing.models import tiny_model


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A random Gemma 3 of 3 blocks and width 16; never changed by any test."""
    return tiny_model("gemma3_text")


@pytest.fixture(scope="session")
def gpt2() -> Model:
    """A random GPT-2: learned absolute positions, a tokenizer without BOS."""
    return tiny_model("gpt2", add_bos=False)
