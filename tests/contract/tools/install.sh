#!/usr/bin/env bash
# Installs the linters and client generators of the contract tests into .wfm/contract-tools: npm packages by
# package-lock.json, Python's by generator.txt. A second run changes nothing and takes no time.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=$(cd ../../.. && pwd)
TARGET=$ROOT/.wfm/contract-tools
READY=$TARGET/.ready

mkdir -p "$TARGET"
# Several test processes may come here at a time.
exec 9>"$TARGET/.lock"
flock 9
if [ -e "$READY" ] && [ ! package-lock.json -nt "$READY" ] && [ ! generator.txt -nt "$READY" ]; then
    exit 0
fi
echo "Installing the linters and client generators of the contract tests (about a minute) ..."
cp package.json package-lock.json "$TARGET"
(cd "$TARGET" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
"$ROOT/.venv/bin/python" -m venv "$TARGET/python"
"$TARGET/python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r generator.txt
touch "$READY"
