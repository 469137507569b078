#!/bin/sh
# The sentence model's kernels for 64-bit Arm, run for real on any machine: cross-built, then run by QEMU.
#
#   cargo xtask arm           or, after it: tests/arm.sh FOLDER, where FOLDER keeps what is built
#
# It ends with 77 where it cannot be had: no QEMU, or no linker for the target. Everything else that goes wrong is a failure.
# It installs nothing. Without Rust's own library for the target it is built from its sources, which node/tools/examples/rust-src.sh
# finds, or puts under FOLDER. QEMU plays a processor without the dot product of bytes, and then one with it.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:?usage: tests/arm.sh FOLDER}
target=aarch64-unknown-linux-gnu
linker=${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:-aarch64-linux-gnu-gcc}
libraries=${CAXTON_ARM_LIBRARIES:-/usr/aarch64-linux-gnu}

say() { printf '\n==> %s\n' "$1"; }
cannot() {
    printf 'error: %s\nhelp: %s\n' "$1" "$2" >&2
    exit 77
}

# --- what is needed ---------------------------------------------------------------------------------------------------

missing=
qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64) || missing="$missing qemu-user-static"
if [ "$(uname -m)" = aarch64 ]; then linker=cc libraries=/; fi
command -v "$linker" >/dev/null || missing="$missing gcc-aarch64-linux-gnu"
[ -e "$libraries/lib/ld-linux-aarch64.so.1" ] || missing="$missing libc6-dev-arm64-cross"
[ -z "$missing" ] || cannot "this test needs more:$missing" \
    "apt-get update && apt-get install --yes --no-install-recommends$missing"

std=
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    say "finding the sources of Rust's library"
    library=$("$here/node/tools/examples/rust-src.sh" "$folder/rust-src")
    # What rust-src.sh finds is this compiler's own library, which needs leave to use what is not stable.
    export RUSTC_BOOTSTRAP=1 __CARGO_TESTS_ONLY_SRC_ROOT="$library"
    std=-Zbuild-std
fi

# --- build, then run on each processor --------------------------------------------------------------------------------

say "building caxton-embed's tests for $target (the first time candle and Rust's library too: minutes)"
export CARGO_TARGET_DIR="$folder" CARGO_TERM_COLOR=never CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$linker"
cd "$here"
# Cargo names the programs on its standard error: "  Executable unittests src/lib.rs (FOLDER/.../NAME)".
mkdir -p "$folder"
# shellcheck disable=SC2086
cargo test --no-run --locked --package caxton-embed --lib --test fidelity --target $target $std 2>&1 | tee "$folder/built"
programs=$(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' "$folder/built")
[ "$(echo "$programs" | wc -w)" = 2 ] || { echo "error: the tests were not built" >&2; exit 1; }

for pair in cortex-a53:Neon neoverse-n1:NeonDot; do
    processor=${pair%:*} kernel=${pair#*:}
    say "$processor, with the kernel $kernel"
    for program in $programs; do
        status=0
        "$qemu" -cpu "$processor" -L "$libraries" "$program" --nocapture >"$folder/said" 2>&1 || status=$?
        cat "$folder/said"
        [ "$status" = 0 ] || { echo "error: $program ended with $status" >&2; exit 1; }
    done
    # The last program says what was compared with what: first the kernel that was chosen, with itself.
    grep -q "$kernel against $kernel" "$folder/said" || { echo "error: $processor did not choose $kernel" >&2; exit 1; }
done
say "each kernel for 64-bit Arm does what it should"
