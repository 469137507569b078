#!/bin/sh
# Prints the folder of Rust's library sources that matches the installed rustc, for -Zbuild-std.
#
# `rustup component add rust-src` is the ordinary way. Where rustup cannot fetch it, Debian's rust-src of the same
# version does: it is downloaded into FOLDER with apt's state kept private, so that nothing of the machine changes.
# Usage: rust-src.sh FOLDER
set -eu
folder=$1
version=$(rustc --version | cut -d' ' -f2)
installed=$(rustc --print sysroot)/lib/rustlib/src/rust/library
debian=$folder/usr/src/rustc-$version/library
if [ -d "$installed" ]; then echo "$installed"; exit; fi
if [ -d "$debian" ]; then echo "$debian"; exit; fi
command -v apt-get >/dev/null || { echo "error: Rust's library sources are missing" >&2; echo "help: run \"rustup component add rust-src\"" >&2; exit 1; }

apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc"
: > "$apt/status"
# The machine's own archive, with the name of the suite changed.
for suite in trixie-backports trixie sid; do
  sed -e "s/^Suites:.*/Suites: $suite/" -e '/^Signed-By/!b' /etc/apt/sources.list.d/debian.sources \
    | awk -v RS= 'NR == 1' > "$apt/etc/debian.sources"
  options="-o Dir::State=$apt -o Dir::State::Lists=$apt/lists -o Dir::State::Status=$apt/status -o Dir::Cache=$apt
    -o Dir::Etc::SourceList=$apt/etc/debian.sources -o Dir::Etc::SourceParts=- -o APT::Get::List-Cleanup=0"
  # shellcheck disable=SC2086
  apt-get $options update >&2 || continue
  # shellcheck disable=SC2086
  found=$(apt-cache $options madison rust-src | awk -v v="$version" '$3 ~ "^"v {print $3; exit}')
  [ -n "$found" ] || continue
  # shellcheck disable=SC2086
  (cd "$apt/archives" && apt-get $options download "rust-src=$found" >&2)
  dpkg-deb -x "$apt"/archives/rust-src_*.deb "$folder"
  echo "$debian"
  exit
done
echo "error: no archive has the sources of Rust $version" >&2
echo "help: run \"rustup component add rust-src\"" >&2
exit 1
