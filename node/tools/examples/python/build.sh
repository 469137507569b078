#!/usr/bin/env bash
# Builds the Python tools: `python/build.sh [FOLDER]` makes FOLDER/NAME.wasm of NAME/app.py for each folder here
# (target/guests unless told).
#
# It installs nothing. `componentize-py` puts a module and Python itself, already started, into a component;
# $COMPONENTIZE_PY names it where it is not on the path. Status 69: it is missing, and what was said last installs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${CAXTON_GUESTS:-$here/../../../../target/guests}}
componentize=${COMPONENTIZE_PY:-componentize-py}

command -v "$componentize" >/dev/null || {
  echo "error: componentize-py is not installed" >&2
  echo "help: python3 -m venv VENV && VENV/bin/pip install componentize-py==0.25.1, and set COMPONENTIZE_PY to VENV/bin/componentize-py" >&2
  exit 69
}

mkdir -p "$out"
# Python leaves compiled modules beside the source that it imports, so it is given a copy.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
for folder in "$here"/*/; do
  tool=$(basename "$folder")
  cp -r "$folder" "$copy/$tool"
  "$componentize" -q -d "$here/../../wit" -w plain-tool-server componentize --stub-wasi -p "$copy/$tool" app -o "$out/$tool.wasm"
  echo "$out/$tool.wasm: $(wc -c < "$out/$tool.wasm") bytes"
done
