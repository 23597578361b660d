#!/usr/bin/env bash
# Build wheel and sdist, install the wheel into an empty environment with the lock, and run the demo from there.
# tools/package.sh [FOLDER] (default: dist); QUICK=1 steers one text in place of the demo.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:-$root/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"
out=$(cd "$out" && pwd)

"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -r "$root/requirements.lock"
# A copy, so that the build leaves nothing in the checkout.
mkdir "$work/tree"
tar -C "$root" --exclude=.venv --exclude=.git --exclude=build --exclude=dist --exclude=site --exclude=runs --exclude='*.egg-info' -cf - . | tar -C "$work/tree" -xf -
(cd "$work/tree" && "$work/venv/bin/python" -c "
import sys
from setuptools import build_meta
out = sys.argv[1]  # setuptools changes it
build_meta.build_sdist(out)
build_meta.build_wheel(out)" "$out" >/dev/null)
ls -l "$out"
"$work/venv/bin/pip" install --no-deps "$out"/trimtab-*.whl
cd "$work" # so that nothing of the checkout is in reach
"$work/venv/bin/trimtab" doctor
if [[ -n "${QUICK:-}" ]]; then
    "$work/venv/bin/trimtab" steer "Once upon a time" --feature 11330:0.5 --max-new-tokens 12
else
    "$work/venv/bin/trimtab" demo --samples 2 --html "$work/demo.html"
fi
