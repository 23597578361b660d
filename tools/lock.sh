#!/usr/bin/env bash
# Rewrite requirements.lock and requirements-dev.lock from a clean environment (about two minutes).
# The present locks serve as constraints, so only what the .in files ask for moves; `tools/lock.sh --upgrade` moves everything.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

limits=()
if [[ "${1:-}" != "--upgrade" ]]; then
    cat requirements.lock requirements-dev.lock 2>/dev/null | grep -E '^[A-Za-z]' >"$work/limits" || true
    limits=(-c "$work/limits")
fi

# A local build tag such as +cpu is dropped: which build of torch is installed is the reader's choice.
frozen() { "$work/venv/bin/pip" freeze --all | grep -v '^pip==' | sed 's/+cpu$//' | LC_ALL=C sort -f; }
header() { printf '# Written by tools/lock.sh from %s. Do not edit by hand.\n' "$1"; }

"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install -r requirements.in "${limits[@]}"
frozen >"$work/run"
"$work/venv/bin/pip" install -r requirements-dev.in -c "$work/run" "${limits[@]}"
frozen >"$work/all"

{ header requirements.in; cat "$work/run"; } >"$work/requirements.lock"
{ header requirements-dev.in; echo "-r requirements.lock"; comm -13 <(LC_ALL=C sort "$work/run") <(LC_ALL=C sort "$work/all"); } >"$work/requirements-dev.lock"
mv "$work/requirements.lock" "$work/requirements-dev.lock" .
