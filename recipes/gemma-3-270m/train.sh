#!/usr/bin/env bash
# The SAEs that ship with trimtab. Needs a corpus of at least 10 million tokens: train.sh TEXTS... -- HELDOUT
# SAE=block-9 makes the second one. Killed? Run it again with --resume as its first word.
set -euo pipefail
resume=""
if [ "${1:-}" = "--resume" ]; then resume="--resume"; shift; fi
texts=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do texts+=("$1"); shift; done
shift
if [ "${SAE:-block-7}" = block-9 ]; then
  settings=(--layer 9 --width 4096 --k 32 --tokens 2549690 --samples 8000000 --lr 0.001)
else
  settings=(--layer 7 --width 16384 --k 38 --tokens 8000000 --samples 12000000 --lr 0.0008)
fi
trimtab train "${texts[@]}" --model gemma-3-270m --architecture batchtopk "${settings[@]}" --batch 4096 \
  --save-dtype bfloat16 --heldout "$1" --seed 0 --out "${OUT:-runs/gemma-3-270m-${SAE:-block-7}}" $resume
