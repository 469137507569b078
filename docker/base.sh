#!/bin/sh
# Makes the image that the Dockerfile starts FROM out of Debian packages, for a machine that cannot pull images.
#
#   docker/base.sh [IMAGE]        default: caxton-base:local
#
# Where images can be pulled, this is not needed: the Dockerfile's default base is Debian's own slim image, and what this
# makes is the same thing, by the same tool. MIRROR names another Debian mirror, SUITE another release.
set -eu

image=${1:-caxton-base:local}
suite=${SUITE:-bookworm}

fail() {
    printf 'error: %s\nhelp: %s\n' "$1" "$2" >&2
    exit 1
}

command -v debootstrap >/dev/null || fail "debootstrap is missing" "apt-get install --yes debootstrap"
command -v docker >/dev/null || fail "docker is missing" "apt-get install --yes docker.io"
[ "$(id -u)" = 0 ] || fail "debootstrap wants root" "run this with sudo"
docker info >/dev/null 2>&1 || fail "the Docker daemon does not answer" "start it: dockerd &"

root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT
# debootstrap's own tree must not be closed to the user that the image runs as.
chmod 0755 "$root"

echo "making $image from the packages of Debian $suite" >&2
debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" ${MIRROR:+"$MIRROR"} >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    fail "debootstrap failed" "its whole log is $root.log"
}
rm -f "$root.log"

# What a container never reads, and is half of the size.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* "$root"/usr/share/locale/* "$root"/usr/share/info/*

# Devices belong to the engine, and importing them needs more rights than unpacking files.
tar --create --directory "$root" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' . |
    docker import --change 'CMD ["/bin/sh"]' - "$image" >/dev/null
docker image inspect --format '{{index .RepoTags 0}}: {{.Size}} bytes' "$image"
