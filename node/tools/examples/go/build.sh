#!/usr/bin/env bash
# Builds the examples in Go: `go/build.sh [FOLDER [NAME...]]` makes FOLDER/NAME.wasm of the folders that are named, or of
# each folder here (target/guests unless told). Tools and agents are built alike.
#
# It installs nothing and fetches nothing: they use Go's own library only. $CAXTON_GO names a Go that is not on the
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
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(cd "$here" && ls -d -- */)
for name in "${@%/}"; do
  (cd "$here/$name" && GOOS=wasip1 GOARCH=wasm GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-trimpath \
    "$go" build -buildvcs=false -ldflags="-s -w" -o "$out/$name.wasm" .)
  chmod 644 "$out/$name.wasm"
  echo "$out/$name.wasm: $(wc -c < "$out/$name.wasm") bytes"
done
