#!/usr/bin/env bash
# Builds the Go tools: `go/build.sh [FOLDER]` makes FOLDER/NAME.wasm of each folder here (target/guests unless told).
#
# It installs nothing and fetches nothing: the tools use Go's own library only. $CAXTON_GO names a Go that is not on the
# path. Status 69: it is missing or too old, and what was said last installs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${CAXTON_GUESTS:-$here/../../../../target/guests}}
go=${CAXTON_GO:-go}

missing() {
  echo "error: $1" >&2
  echo "help: install Go 1.21 or newer: https://go.dev/dl, or on Debian 12 with backports enabled: apt-get install -t bookworm-backports golang-1.23-go, and set CAXTON_GO to /usr/lib/go-1.23/bin/go" >&2
  exit 69
}

command -v "$go" >/dev/null || missing "Go is not installed"
"$go" tool dist list 2>/dev/null | grep -qx wasip1/wasm || missing "$("$go" version) cannot build for wasip1"

mkdir -p "$out"
out=$(cd "$out" && pwd)
for folder in "$here"/*/; do
  tool=$(basename "$folder")
  (cd "$folder" && GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-trimpath \
    "$go" build -buildvcs=false -ldflags="-s -w" -o "$out/$tool.wasm" .)
  chmod 644 "$out/$tool.wasm"
  echo "$out/$tool.wasm: $(wc -c < "$out/$tool.wasm") bytes"
done
