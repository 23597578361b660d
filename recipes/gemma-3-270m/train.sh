#!/usr/bin/env bash
# The SAE that ships with trimtab. Needs a corpus of at least 10 million tokens: train.sh TEXTS... -- HELDOUT
# Killed? Run it again with --resume as its first word.
set -euo pipefail
resume=""
if [ "${1:-}" = "--resume" ]; then resume="--resume"; shift; fi
texts=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do texts+=("$1"); shift; done
shift
trimtab train "${texts[@]}" --model gemma-3-270m --layer 7 \
  --architecture batchtopk --width 16384 --k 38 \
  --tokens 8000000 --samples 12000000 --batch 4096 --lr 0.0008 \
  --save-dtype bfloat16 --heldout "$1" --seed 0 --out "${OUT:-runs/gemma-3-270m}" $resume
