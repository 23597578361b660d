"""SAEDashboard on the same model, SAE and tokens as bench/index.py; it needs other versions, so a venv of its own:

    python -m venv dash
    dash/bin/pip install torch==2.13.0 "numpy<2" transformer-lens==2.17.0 transformers==4.56.2 "sae-lens>=6.8,<7" \
        dataclasses-json eindex-callum "pyarrow<18" datasets==3.6.0
    dash/bin/pip install --no-deps sae-dashboard==0.8.0
    dash/bin/python bench/sae_dashboard_package.py MODEL_FOLDER SAE_FOLDER TOKENS.npy OUT.json --hook HOOK

TOKENS.npy is what `bench/index.py --write-tokens` writes: [64, 128] with BOS. Two numbers of features in one batch give
the time of a batch (the forward pass over all tokens) and of a feature; all features in batches of 256, which is its
default, are scaled from these. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import transformer_lens.utils as loading
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE, HookedSAETransformer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

BATCH = 256


def main() -> None:
    """Time a few features, scale to all of them."""
    parser = argparse.ArgumentParser(description="Time SAEDashboard.")
    parser.add_argument("model")
    parser.add_argument("sae")
    parser.add_argument("tokens")
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default="google/gemma-3-270m")
    parser.add_argument("--hook", required=True)
    parser.add_argument("--features", type=int, nargs=2, default=(4, 12))
    given = parser.parse_args()
    torch.set_num_threads(1)
    hf = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{given.model}/tokenizer.json", bos_token="<bos>")
    loading.get_tokenizer_with_bos = lambda given: given  # it would look for the tokenizer by its name
    model = HookedSAETransformer.from_pretrained_no_processing(given.name, hf_model=hf, tokenizer=tokenizer)
    sae = SAE.load_from_disk(given.sae)
    tokens = torch.from_numpy(np.load(given.tokens)).long()
    few, more = given.features
    times: dict[int, float] = {}
    for n in (1, few, more):  # the first warms up
        times[n] = seconds(model, sae, tokens, given.hook, range(n))
        print(n, f"{times[n]:.1f} s", flush=True)
    feature = (times[more] - times[few]) / (more - few)
    batch = max(0.0, times[few] - few * feature)
    total = -(-sae.cfg.d_sae // BATCH) * batch + sae.cfg.d_sae * feature
    said = {
        "tokens": tokens.numel(),
        "seconds_per_batch": batch,
        "seconds_per_feature": feature,
        "seconds_scaled": total,
    }
    given.out.write_text(json.dumps(said | {"timed": times}, indent=2) + "\n")
    print(said)


def seconds(model: HookedSAETransformer, sae: SAE, tokens: torch.Tensor, hook: str, features: range) -> float:
    """Processor seconds for these features."""
    config = SaeVisConfig(hook_point=hook, features=list(features), minibatch_size_features=BATCH, device="cpu")
    started = time.process_time()
    SaeVisRunner(config).run(encoder=sae, model=model, tokens=tokens)
    return time.process_time() - started


if __name__ == "__main__":
    main()
