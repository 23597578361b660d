"""The package steering-vectors, in an environment of its own, because it needs transformers below 5.

    python -m venv sv && sv/bin/pip install steering-vectors "transformers<5" torch
    sv/bin/python bench/steering_vectors_package.py FOLDER_OF_THE_MODEL [--rows 1 8 32] [--tokens 16] [--out FILE]

It prints the rates of `generate` with one vector on every row, to be read beside those of bench/engine.py, whose
prompts, vector and number of tokens these are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import torch
from steering_vectors import SteeringVector
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

PROMPT = "Once upon a time, in house number {} by the river, there lived"


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, torch_dtype=torch.float32)
    file = str(Path(args.model) / "tokenizer.json")  # transformers 4 does not know the class that 5 writes down
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>", padding_side="left")
    width, layer = model.config.hidden_size, model.config.num_hidden_layers // 2
    vector = SteeringVector({layer: torch.randn(width, generator=torch.Generator().manual_seed(0))})
    said = []
    for rows in args.rows:
        inputs = tokenizer(
            [PROMPT.format(i) for i in range(rows)], return_tensors="pt", padding=True, return_token_type_ids=False
        )
        rates = []
        for turn in range(-1, args.rounds):
            began = time.perf_counter()
            with vector.apply(model), torch.no_grad():
                new = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens}
                model.generate(**inputs, do_sample=True, top_k=0, top_p=1.0, pad_token_id=0, **new)
            if turn >= 0:
                rates.append(rows * args.tokens / (time.perf_counter() - began))
        said.append({"rows": rows, "tokens_per_second": statistics.median(rates), "rounds": rates})
        print(said[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    if args.out:
        args.out.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
