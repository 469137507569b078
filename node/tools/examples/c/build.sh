#!/usr/bin/env bash
# Builds the C tools: `c/build.sh [FOLDER]` makes FOLDER/NAME.wasm of each folder here (target/guests unless told).
#
# It installs nothing. A clang with a WebAssembly linker and wasi-libc is needed; $WASI_SDK_PATH names a WASI SDK to
# use instead of the system's. Status 69: something is missing, and what was said last installs it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-${CAXTON_GUESTS:-$here/../../../../target/guests}}
clang=${WASI_SDK_PATH:+$WASI_SDK_PATH/bin/}clang

missing() {
  echo "error: $1" >&2
  echo "help: apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32 (Debian 12; elsewhere the number is clang's), or set WASI_SDK_PATH to the folder of https://github.com/WebAssembly/wasi-sdk" >&2
  exit 69
}

command -v "$clang" >/dev/null || missing "clang is not installed"
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
printf '#include <stdio.h>\nint main(void) { return puts("x") < 0; }\n' > "$probe/probe.c"
"$clang" --target=wasm32-wasi "$probe/probe.c" -o "$probe/probe.wasm" 2> "$probe/said" ||
  missing "clang cannot build for wasm32-wasi: $(head -n 1 "$probe/said")"

mkdir -p "$out"
out=$(cd "$out" && pwd)
for folder in "$here"/*/; do
  tool=$(basename "$folder")
  # 64 KiB of stack instead of 1 MiB, and no names: a fresh instance touches less, and the file is smaller.
  (cd "$folder" && "$clang" --target=wasm32-wasi -std=gnu11 -Os -flto -Wall -Wextra -Werror \
    -Wl,--strip-all -Wl,-z,stack-size=65536 ./*.c -o "$out/$tool.wasm")
  chmod 644 "$out/$tool.wasm"
  echo "$out/$tool.wasm: $(wc -c < "$out/$tool.wasm") bytes"
done
