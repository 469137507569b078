#!/usr/bin/env bash
# Builds the examples in Python: `python/build.sh [FOLDER [NAME...]]` makes FOLDER/NAME.wasm of NAME/app.py for those
# that are named, or for each folder here (target/guests unless told). What has a tool.toml is a tool, anything else an
# agent.
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
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cd "$here" && ls -d -- */)
for name in "${@%/}"; do
  cp -r "$here/$name" "$copy/$name"
  if [ -f "$here/$name/tool.toml" ]; then
    world=(-d "$here/../../wit" -w plain-tool-server) options=(--stub-wasi)
  else
    # An agent keeps its standard error, where Python writes the traceback of an exception that nobody caught.
    world=(-d "$here/../../wit/agent" -w agent) options=()
  fi
  "$componentize" -q "${world[@]}" componentize "${options[@]}" -p "$copy/$name" app -o "$out/$name.wasm"
  echo "$out/$name.wasm: $(wc -c < "$out/$name.wasm") bytes"
done
