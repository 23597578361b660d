#!/usr/bin/env bash
# Make sure that there is a Chromium for the tests of the page; install Debian's where that is possible.
set -euo pipefail
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" > /dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core
    exit 0
fi
echo "The tests of the page need Chromium (or Google Chrome), and there is none: on Debian, apt-get install chromium." >&2
exit 1
