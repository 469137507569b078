#!/usr/bin/env bash
# Builds the examples in JavaScript: `javascript/build.sh [FOLDER [NAME...]]` makes FOLDER/NAME.wasm of NAME/NAME.js for
# those that are named, or for each folder here (target/guests unless told). What has a tool.toml is a tool, anything
# else an agent.
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
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cd "$here" && ls -d -- */)
for name in "${@%/}"; do
  if [ -f "$here/$name/tool.toml" ]; then
    # These tools compute and nothing else, so they import nothing: what they might have imported is stubbed.
    interface=(--wit "$here/../../wit" --world plain-tool-server --stub-wasi)
  else
    # An agent keeps its standard error, where an exception that nobody caught is told.
    interface=(--wit "$here/../../wit/agent" --world agent)
  fi
  "$componentize" "${interface[@]}" --js "$here/$name/$name.js" --sync --opt-size -o "$out/$name.wasm" >&2
  echo "$out/$name.wasm: $(wc -c < "$out/$name.wasm") bytes"
done
