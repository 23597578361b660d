from __future__ import annotations

import os
from collections.abc import Iterator

# Before transformers or the hub client is imported: no test may touch the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is: on models this small a second thread only waits, and waits busily when the machine has other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from trimtab.lm.load import Model
from trimtab.testing.models import tiny_model


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes what the user keeps, such as the texts on which a dose is measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> Model:
    """A random Gemma 3 of 3 blocks and width 16; never changed by any test."""
    return tiny_model("gemma3_text")


@pytest.fixture(scope="session")
def gpt2() -> Model:
    """A random GPT-2: learned absolute positions, a tokenizer without BOS."""
    return tiny_model("gpt2", add_bos=False)
