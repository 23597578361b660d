#!/usr/bin/env bash
# The second, smaller SAE that ships with trimtab: another block of the same model, so that what the first one says can be judged
# by features that it does not know. train_block_9.sh TEXTS... -- HELDOUT; killed? Run it again with --resume as its first word.
set -euo pipefail
resume=""
if [ "${1:-}" = "--resume" ]; then resume="--resume"; shift; fi
texts=()
while [ $# -gt 0 ] && [ "$1" != "--" ]; do texts+=("$1"); shift; done
shift
trimtab train "${texts[@]}" --model gemma-3-270m --layer 9 \
  --architecture batchtopk --width 4096 --k 32 \
  --tokens 2549690 --samples 8000000 --batch 4096 --lr 0.001 \
  --save-dtype bfloat16 --heldout "$1" --seed 0 --out "${OUT:-runs/gemma-3-270m-block-9}" $resume
