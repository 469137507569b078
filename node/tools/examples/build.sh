#!/bin/sh
# Builds the example tools that are committed: those in Rust and in C. `build.sh rust` and `build.sh c` put each where it
# lies (`place`), once for the demo, the tests and the benchmarks, or all into a folder that is named; `build.sh check`
# builds them again and says whether the committed ones are the same. The tools in other languages are too large to commit: LANGUAGE/build.sh
# builds them, and tests/languages.rs does.
#
# Rust needs one of: `rustup target add wasm32-unknown-unknown`, or `rustup component add rust-src`, or a
# Debian archive to take the sources from (rust-src.sh). Everything that it makes goes under $CAXTON_GUESTS
# (target/guests unless told), so that two checkouts can share it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
work=${CAXTON_GUESTS:-$root/target/guests}
target=wasm32-unknown-unknown
tools="csv-reader stats chart-generator http-fetch plain-model ping pong"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$work"

# The tools of the example workspace lie in it, so that it can be deployed as it is, and the agents beside it; the others
# are the tests' own.
place() {
  case "$1" in ping | pong) echo "$root/node/examples/$1.wasm"; return ;; esac
  workspace="$root/node/examples/csv-to-chart/tools/$1"
  if [ -d "$workspace" ]; then echo "$workspace/$1.wasm"; else echo "$here/../fixtures/$1.wasm"; fi
}

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

# componentize FOLDER: into FOLDER, or each to its place.
componentize() {
  (cd "$here/componentize" && RUSTFLAGS= RUSTC_BOOTSTRAP= CARGO_TARGET_DIR="$work/host" cargo build --locked --release)
  for tool in $tools; do
    module=$(echo "$tool" | tr - _)
    if [ -n "${1:-}" ]; then mkdir -p "$1"; to="$1/$tool.wasm"; else to=$(place "$tool"); fi
    "$work/host/release/componentize" "$work/rust/$target/release/$module.wasm" "$to"
    echo "$to: $(wc -c < "$to") bytes"
  done
}

compare() {
  for tool in "$@"; do
    cmp "$work/check/$tool.wasm" "$(place "$tool")" || {
      echo "error: $tool.wasm was not built from this source with $(rustc --version) and $(clang --version 2>&1 | head -n 1)" >&2
      echo "help: run node/tools/examples/build.sh rust, or build.sh c, and commit what it makes" >&2
      exit 1
    }
  done
}

case "${1:-}" in
  rust)
    rust_modules
    componentize "${2:-}"
    ;;
  c)
    "$here/c/build.sh" "${2:-$work/c}"
    [ -n "${2:-}" ] || cp "$work/c/checksum.wasm" "$(place checksum)"
    ;;
  check)
    rust_modules
    componentize "$work/check"
    "$here/c/build.sh" "$work/check"
    # shellcheck disable=SC2086
    compare $tools checksum
    echo "the committed tools are what their source builds"
    ;;
  *)
    echo "usage: build.sh rust [FOLDER] | c [FOLDER] | check" >&2
    exit 2
    ;;
esac
