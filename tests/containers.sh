#!/bin/sh
# Three nodes in containers, for real: deploy to one, ask another, kill a third, ask again.
#
#   cargo xtask containers             builds the binary first
#   tests/containers.sh BINARY         takes this one
#   tests/containers.sh BINARY three   only the three nodes, and no further than the third's return: what every change runs
#
# It ends with 77 where containers cannot be had: no Docker, or no base image. Everything else that goes wrong is a failure.
# It starts a Docker daemon of its own when none answers, makes the base image from Debian packages when there is none, and
# takes down what it brought up. KEEP=1 leaves the nodes running, and says how to look at them.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
binary=$(realpath "${1:?usage: tests/containers.sh BINARY [three]}")
part=${2:-all}
base=${CAXTON_BASE:-caxton-base:local}
image=caxton:test
project=caxton-test
# How long anything that has to happen may take, in seconds.
deadline=300

export COMPOSE_PROJECT_NAME=$project CAXTON_IMAGE=$image
export CAXTON_PORT_1="${CAXTON_PORT_1:-17411}" CAXTON_PORT_2="${CAXTON_PORT_2:-17421}" CAXTON_PORT_3="${CAXTON_PORT_3:-17431}"
# Nothing of the person's own may answer for the test's nodes.
unset CAXTON_SERVER CAXTON_TOKEN CAXTON_TOKEN_FILE CAXTON_CA_FILE CAXTON_WORKSPACE CAXTON_DATA_DIR COMPOSE_PROFILES || true

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
daemon=

say() { printf '\n==> %s\n' "$1"; }

tell() {
    printf 'error: %s\n' "$1" >&2
    shift
    for help in "$@"; do printf 'help: %s\n' "$help" >&2; done
}
fail() {
    tell "$@"
    exit 1
}
cannot() {
    tell "$@"
    exit 77
}

# --- what is needed ---------------------------------------------------------------------------------------------------

missing=
{ command -v docker && command -v dockerd; } >/dev/null || missing="$missing docker.io"
if docker compose version >/dev/null 2>&1; then
    compose='docker compose'
elif command -v docker-compose >/dev/null; then
    compose=docker-compose
else
    missing="$missing docker-compose"
fi
command -v openssl >/dev/null || missing="$missing openssl"
if [ "$part" = all ]; then
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
fi
[ -z "$missing" ] || cannot "this test needs more:$missing" \
    "apt-get update && apt-get install --yes --no-install-recommends$missing"
[ -x "$binary" ] || fail "$binary is not a program" "cargo build --package caxton"

# --- the daemon, the image, and how to leave --------------------------------------------------------------------------

finish() {
    status=$?
    trap - EXIT INT TERM
    if [ "$status" != 0 ]; then
        say "what the nodes said last"
        $compose --file "$here/docker/compose.yaml" logs --tail=40 2>/dev/null || true
    fi
    if [ "${KEEP:-}" = 1 ]; then
        say "left running: COMPOSE_PROJECT_NAME=$project $compose --file docker/compose.yaml ps; token and CA in $work"
        exit "$status"
    fi
    docker rm --force "$project-alone" >/dev/null 2>&1 || true
    $compose --file "$here/docker/compose.yaml" down --volumes --timeout 5 >/dev/null 2>&1 || true
    docker volume rm "$project-alone" >/dev/null 2>&1 || true
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    rm -rf "$work"
    exit "$status"
}
trap finish EXIT INT TERM

# Runs a command until it succeeds, or the deadline has passed.
until_true() {
    what=$1
    shift
    until_s=$(($(date +%s) + deadline))
    while ! "$@" >"$work/last" 2>&1; do
        if [ "$(date +%s)" -ge "$until_s" ]; then
            cat "$work/last" >&2
            fail "$what did not happen within $deadline s"
        fi
        sleep 0.2
    done
}

if ! docker info >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || cannot "no Docker daemon answers" "start it, or run this as root so that it can start one"
    say "starting a Docker daemon"
    dockerd --pidfile "$work/dockerd.pid" >"$work/dockerd.log" 2>&1 &
    daemon=$!
    until_s=$(($(date +%s) + 60))
    while ! docker info >/dev/null 2>&1; do
        if [ "$(date +%s)" -ge "$until_s" ] || ! kill -0 "$daemon" 2>/dev/null; then
            tail -n 20 "$work/dockerd.log" >&2
            cannot "the Docker daemon does not start here" "start it, and run this again"
        fi
        sleep 0.2
    done
fi
if ! docker image inspect "$base" >/dev/null 2>&1; then
    say "making the base image $base"
    if ! command -v debootstrap >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        # The lists may be old or gone; without a network the script below says what is missing.
        { apt-get install --yes --no-install-recommends debootstrap ||
            { apt-get update && apt-get install --yes --no-install-recommends debootstrap; }; } >"$work/apt" 2>&1 || true
    fi
    # What was built here runs on this release of Debian.
    release=$(. /etc/os-release && [ "$ID" = debian ] && printf '%s' "${VERSION_CODENAME:-}") || release=
    SUITE=${SUITE:-${release:-bookworm}} "$here/docker/base.sh" "$base" || cannot "there is no base image, and none can be made here" \
        "name another one: CAXTON_BASE=IMAGE"
fi

# A daemon may answer where no container starts, or no network can be made.
trial() {
    docker network create "$project-trial" >/dev/null && docker run --rm --network "$project-trial" "$base" true
}
trial >"$work/trial" 2>&1 || {
    cat "$work/trial" >&2
    docker network rm "$project-trial" >/dev/null 2>&1 || true
    cannot "the Docker daemon starts no container here" "see above what it lacks"
}
docker network rm "$project-trial" >/dev/null

say "the image"
mkdir "$work/image"
strip -o "$work/image/caxton" "$binary" 2>/dev/null || cp "$binary" "$work/image/caxton"
docker build --quiet --file "$here/docker/Dockerfile" --target prebuilt --build-arg BASE="$base" --tag "$image" \
    "$work/image" >/dev/null
docker image inspect --format "{{index .RepoTags 0}}: {{.Size}} bytes, user {{.Config.User}}" "$image"

# The compose file and the chart's script call these in the image.
for tool in base64 find getent grep head install openssl sed sleep tr; do
    docker run --rm --entrypoint /bin/sh "$image" -c "command -v $tool" >/dev/null || fail "the image has no $tool"
done

# --- one node, as `docker run` starts it ------------------------------------------------------------------------------

cp -r "$here/node/examples/csv-to-chart" "$work/workspace"
cd "$work/workspace"

state() { docker inspect --format "$2" "$1"; }
healthy() { [ "$(state "$1" '{{.State.Health.Status}}')" = healthy ]; }

# Keeps what a client outside of the containers needs to speak to node $1 on port $2.
credentials() {
    docker exec "$1" cat /var/lib/caxton/tls/ca.pem >"$work/ca.pem"
    docker exec "$1" caxton token create containers-test --role admin 2>/dev/null >"$work/token"
}
at() {
    port=$1
    shift
    timeout "$deadline" "$binary" --server "https://localhost:$port" --ca-file "$work/ca.pem" --token-file "$work/token" "$@"
}

one_node() {
    say "one node: it starts, serves, stops with code 0, and knows everything when it starts again"
    docker run --detach --name "$project-alone" --volume "$project-alone:/var/lib/caxton" \
        --publish "127.0.0.1:$CAXTON_PORT_1:7411" \
        --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges "$image" >/dev/null
    until_true "a healthy node" healthy "$project-alone"
    [ "$(docker exec "$project-alone" id -u)" = 10001 ] || fail "the node does not run as user 10001"
    credentials "$project-alone"
    at "$CAXTON_PORT_1" deploy --yes
    docker stop --time 20 "$project-alone" >/dev/null
    [ "$(state "$project-alone" '{{.State.ExitCode}}')" = 0 ] || fail "SIGTERM ended the node with another code than 0"
    docker start "$project-alone" >/dev/null
    until_true "a healthy node after its restart" healthy "$project-alone"
    at "$CAXTON_PORT_1" ask "Draw a chart of sales by quarter" --file sales.csv | grep -q 510750 || fail "wrong answer"
    docker rm --force "$project-alone" >/dev/null
}
[ "$part" = three ] || one_node

# --- three nodes ------------------------------------------------------------------------------------------------------

up() { $compose --file "$here/docker/compose.yaml" up --detach "$@"; }
node() { $compose --file "$here/docker/compose.yaml" ps --all --quiet "$1"; }
all_healthy() { for name in node1 node2 node3; do healthy "$(node "$name")" || return 1; done; }
answers() {
    answer=$(at "$1" ask "Draw a chart of sales by quarter" --file sales.csv --json) || return 1
    case $answer in *510750*) ;; *) return 1 ;; esac
}
# Whether the node on port $1 serves revision $2.
serves() { at "$1" log --json | tr -d ' \n' | grep -q "\"revision\":$2[,}]"; }
cluster() { docker exec "$(node "$1")" caxton cluster status --json | tr -d ' \n'; }
# The groups come in order, and the first is the deploy log.
voters() { cluster "$1" | grep -o '"voters":\[[^]]*\]' | head -n 1 | grep -o '"[0-9a-f]*"' | tr -d '"'; }
three_voters() { [ "$(voters node1 | wc -l)" = 3 ]; }

"$binary" serve --help | grep -q -- '--secret-file' || fail "this caxton cannot form a cluster: it has no --secret-file" \
    "build it anew: cargo build --package caxton"
# What a run that was broken off has left.
$compose --file "$here/docker/compose.yaml" down --volumes --timeout 5 >/dev/null 2>&1 || true

say "three nodes: one command"
up
until_true "three healthy nodes" all_healthy
until_true "three voters" three_voters
docker exec "$(node node1)" caxton cluster members
credentials "$(node node1)"

say "deploy to the first, ask the second"
at "$CAXTON_PORT_1" deploy --yes
until_true "the deployment on the second node" serves "$CAXTON_PORT_2" 1
until_true "an answer of the second node" answers "$CAXTON_PORT_2"
echo "the second node answered"

say "kill the third, ask again, deploy again"
docker kill "$(node node3)" >/dev/null
until_true "an answer of the second node without the third" answers "$CAXTON_PORT_2"
echo '# changed' >>caxton.toml
until_true "a deployment without the third node" at "$CAXTON_PORT_2" deploy --yes
until_true "the second deployment on the first node" serves "$CAXTON_PORT_1" 2
until_true "an answer of the first node" answers "$CAXTON_PORT_1"
echo "both nodes answered"

say "the third comes back and has what it missed"
up node3
until_true "three healthy nodes again" all_healthy
until_true "the second deployment on the third node" serves "$CAXTON_PORT_3" 2
until_true "an answer of the third node" answers "$CAXTON_PORT_3"
echo "the third node answered"

if [ "$part" = three ]; then
    say "three nodes: passed"
    exit 0
fi

say "the first is killed, the others go on, and it comes back"
docker kill "$(node node1)" >/dev/null
until_true "an answer without the first node" answers "$CAXTON_PORT_2"
echo '# changed again' >>caxton.toml
until_true "a deployment without the first node" at "$CAXTON_PORT_3" deploy --yes
up node1
until_true "three healthy nodes once more" all_healthy
until_true "the third deployment on the first node" serves "$CAXTON_PORT_1" 3

say "all stop, with code 0, and start again"
$compose --file "$here/docker/compose.yaml" stop
for name in node1 node2 node3; do
    [ "$(state "$(node $name)" '{{.State.ExitCode}}')" = 0 ] || fail "$name did not stop with code 0"
done
up
until_true "three healthy nodes after an outage" all_healthy
serves "$CAXTON_PORT_2" 3 || fail "the second node lost a deployment"
until_true "an answer after the outage" answers "$CAXTON_PORT_3"

say "the first loses its disk: it joins the others again and founds no second cluster"
cluster_of() { cluster "$1" | grep -o '"cluster":"[^"]*"' | head -n 1; }
before=$(cluster_of node2)
lost=$(docker exec "$(node node1)" sed -n 's/^node 0*//p' /var/lib/caxton/identity)
docker rm --force "$(node node1)" >/dev/null
docker volume rm "${project}_node1" >/dev/null
up node1
until_true "three healthy nodes at last" all_healthy
[ "$(cluster_of node1)" = "$before" ] || fail "node1 is in another cluster: $(cluster_of node1), not $before"
until_true "the third deployment on the new first node" serves "$CAXTON_PORT_1" 3
# The lost one votes until someone says that it will not come back.
docker exec "$(node node2)" caxton cluster remove "$lost" --yes
until_true "three voters again" three_voters
voters node1 | grep -qx "$lost" && fail "the lost node still votes"
docker exec "$(node node2)" caxton cluster members

say "the chart's pods: the same image with what the chart gives it"
$compose --file "$here/docker/compose.yaml" down --volumes --timeout 20
"$here/tests/charts.sh" pods "$image"

say "all passed"
