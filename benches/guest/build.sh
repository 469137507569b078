#!/bin/sh
# Builds partner.wasm, the agent of the benchmark of messages, here or in the folder that is named, as node/tools/examples/build.sh builds the examples; what that
# needs is said there. Everything that it makes goes under $CAXTON_GUESTS (target/guests unless told).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here}
root=$(cd "$here/../.." && pwd)
examples=$root/node/tools/examples
work=${CAXTON_GUESTS:-$root/target/guests}
target=wasm32-unknown-unknown
mkdir -p "$work"
sysroot=$(rustc --print sysroot)
# A path of this machine in a module would make it differ from the same module built on another.
remap="--remap-path-prefix=$root=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo --remap-path-prefix=$sysroot=/rust"
std=""
if [ ! -d "$sysroot/lib/rustlib/$target" ]; then
  library=$("$examples/rust-src.sh" "$work/rust-src")
  export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library"
  remap="$remap --remap-path-prefix=$(dirname "$library")=/rust/src"
  std="-Zbuild-std=std,panic_abort"
fi
# 64 KiB of stack instead of 1 MiB: a fresh instance touches less.
# shellcheck disable=SC2086
(cd "$here" && CARGO_TARGET_DIR="$work/rust" RUSTFLAGS="$remap -Clink-arg=-zstack-size=65536" cargo build --locked --release $std --target $target)
(cd "$examples/componentize" && RUSTFLAGS='' RUSTC_BOOTSTRAP='' CARGO_TARGET_DIR="$work/host" cargo build --locked --release)
"$work/host/release/componentize" "$work/rust/$target/release/partner.wasm" "$out/partner.wasm"
echo "$out/partner.wasm: $(wc -c < "$out/partner.wasm") bytes"
