#!/usr/bin/env bash
# The index that ships with the SAE: texts of the model's own, cleaned, indexed, labelled, mapped, packed.
# Killed? Run it again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-runs/gemma-3-270m-index}
trimtab corpus sample --texts 4608 --tokens-each 96 --temperature 0.9 --seed 0 --batch-size 128 --dtype bfloat16 \
  --prompts "$here/openers.txt" --out "$out/texts"
python "$here/clean_corpus.py" "$out/texts" --out "$out/texts.jsonl.gz" --heldout "$out/unseen.jsonl.gz"
trimtab index build "$out/texts.jsonl.gz" --random 20 --heldout "$out/unseen.jsonl.gz" --out "$out/index"
python "$here/../../bench/labels.py" "$out/index" "$out/unseen.jsonl.gz" \
  --out "$here/../../bench/results/labels.json" --page "$here/../../docs/index.md"
trimtab index map "$out/index"
rm -rf "$out/packed"
trimtab index pack "$out/index" --out "$out/packed"
