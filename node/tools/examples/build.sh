#!/bin/sh
# Builds the example tools. `build.sh rust` builds the Rust ones into ../fixtures, where the tests, the demo and the
# benchmarks find them; `build.sh check` builds them again elsewhere and says whether the committed ones are the same.
#
# It needs Rust and one of: `rustup target add wasm32-unknown-unknown`, or `rustup component add rust-src`, or a
# Debian archive to take the sources from (rust-src.sh). Everything that it makes goes under $CAXTON_GUESTS
# (target/guests unless told), so that two checkouts can share it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${CAXTON_GUESTS:-$root/target/guests}
target=wasm32-unknown-unknown
tools="csv-reader stats chart-generator http-fetch plain-model"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$work"

# A path of this machine in a module would make it differ from the same module built on another.
remap="--remap-path-prefix=$here=/src --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"

rust_modules() {
  export CARGO_TARGET_DIR="$work/rust"
  std=""
  if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    library=$("$here/rust-src.sh" "$work/rust-src")
    export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library"
    remap="$remap --remap-path-prefix=$(dirname "$library")=/rust/src"
    std="-Zbuild-std=std,panic_abort"
  fi
  # 64 KiB of stack instead of 1 MiB: a fresh instance touches less.
  export RUSTFLAGS="$remap -Clink-arg=-zstack-size=65536"
  # shellcheck disable=SC2086
  (cd "$here/rust" && cargo build --locked --release $std --target $target)
}

componentize() {
  (cd "$here/componentize" && RUSTFLAGS= RUSTC_BOOTSTRAP= CARGO_TARGET_DIR="$work/host" cargo build --locked --release)
  mkdir -p "$1"
  for tool in $tools; do
    module=$(echo "$tool" | tr - _)
    "$work/host/release/componentize" "$work/rust/$target/release/$module.wasm" "$1/$tool.wasm"
    ls -l "$1/$tool.wasm" | awk '{print $5, $NF}'
  done
}

case "${1:-rust}" in
  rust)
    rust_modules
    componentize "$here/../fixtures"
    ;;
  check)
    rust_modules
    componentize "$work/check"
    for tool in $tools; do
      cmp "$work/check/$tool.wasm" "$here/../fixtures/$tool.wasm" ||
        { echo "error: fixtures/$tool.wasm was not built from this source with $(rustc --version)" >&2
          echo "help: run node/tools/examples/build.sh rust and commit what it makes" >&2; exit 1; }
    done
    echo "the fixtures are what their source builds"
    ;;
  *)
    echo "usage: build.sh [rust|check]" >&2; exit 2 ;;
esac
