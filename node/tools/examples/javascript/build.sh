#!/usr/bin/env bash
# Builds the JavaScript tools: `javascript/build.sh [FOLDER]` makes FOLDER/NAME.wasm of NAME/NAME.js for each folder
# here (target/guests unless told).
#
# It installs nothing. `componentize-qjs` puts a script and the QuickJS engine, already started, into a component;
# $COMPONENTIZE_QJS names it where it is not on the path. Status 69: it is missing, and what was said last installs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${CAXTON_GUESTS:-$here/../../../../target/guests}}
componentize=${COMPONENTIZE_QJS:-componentize-qjs}

command -v "$componentize" >/dev/null || {
  echo "error: componentize-qjs is not installed" >&2
  echo "help: npm install --global componentize-qjs@0.4.5, or install it in a folder and set COMPONENTIZE_QJS to FOLDER/node_modules/.bin/componentize-qjs" >&2
  exit 69
}

mkdir -p "$out"
for folder in "$here"/*/; do
  tool=$(basename "$folder")
  # These tools compute and nothing else, so they import nothing: what they might have imported is stubbed.
  "$componentize" --wit "$here/../../wit" --world plain-tool-server --js "$folder$tool.js" \
    --sync --opt-size --stub-wasi -o "$out/$tool.wasm" >&2
  echo "$out/$tool.wasm: $(wc -c < "$out/$tool.wasm") bytes"
done
