#!/bin/sh
# What a pod of the StatefulSet does at its start and before its end. The chart mounts it at /opt/caxton/node.sh.
#
#   node.sh start    found the cluster, or join it, or go on with the disk that is there
#   node.sh stop     leave the cluster if this node is scaled away; otherwise only wait until no service names it
#
# It relies on POD_NAME, PEERS (the headless service), FOUND, STATEFULSET, LEAVE_S and PAUSE_S of the pod's environment.
set -eu

ordinal=${POD_NAME##*-}
account=${ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}

say() { printf '{"level":"INFO","message":"%s","target":"node.sh"}\n' "$1" >&2; }

start() {
    # The pod's own name comes into the DNS a moment after the pod. Until then no other node could reach this one, and gossip
    # would not know what to announce.
    own="$POD_NAME.$PEERS"
    until getent hosts "$own" >/dev/null; do
        say "waiting for the name $own"
        sleep 1
    done
    # Any of the first three lets a node in, and they are the last to be scaled away. The list is the same on every node and
    # for every number of replicas, so that scaling restarts nothing.
    name=${POD_NAME%-*}
    set -- "--join=$name-0.$PEERS:7412,$name-1.$PEERS:7412,$name-2.$PEERS:7412"
    # With --found beside --join, a node founds only when none of the others answers. Both mean nothing once a disk holds a
    # node.
    if [ "$ordinal" = 0 ] && [ "$FOUND" = true ]; then
        set -- "$@" --found
    fi
    exec caxton serve "$@"
}

# How many nodes Kubernetes is to keep, as the StatefulSet says now.
replicas() {
    host=${KUBERNETES_SERVICE_HOST:?}
    case $host in *:*) host="[$host]" ;; esac
    path="/apis/apps/v1/namespaces/$(cat "$account/namespace")/statefulsets/$STATEFULSET/scale"
    # One request over one connection: the image has no HTTP client, and needs none for anything else.
    { printf 'GET %s HTTP/1.0\r\nHost: kubernetes.default.svc\r\nAccept: application/json\r\n' "$path"
      printf 'Authorization: Bearer %s\r\n\r\n' "$(cat "$account/token")"
    } | openssl s_client -quiet -verify_return_error -CAfile "$account/ca.crt" -verify_hostname kubernetes.default.svc \
            -servername kubernetes.default.svc -connect "$host:${KUBERNETES_SERVICE_PORT:?}" 2>/dev/null |
        tr -d ' \t\r\n' | sed -n 's/.*"spec":{"replicas":\([0-9][0-9]*\)}.*/\1/p'
}

stop() {
    wanted=
    if [ "${LEAVE:-false}" = true ]; then
        wanted=$(replicas) || wanted=
        [ -n "$wanted" ] || say "cannot tell how many nodes there are to be; this one stays a member"
    fi
    # Not when all are scaled to nothing: then the cluster sleeps, and wakes up with the same nodes.
    if [ -n "$wanted" ] && [ "$wanted" -gt 0 ] && [ "$ordinal" -ge "$wanted" ]; then
        say "scaled away: leaving the cluster"
        # It returns when no group counts this node any more, and waits while another one leaves. The disk goes with the pod.
        caxton cluster leave --yes --timeout "${LEAVE_S}s" ||
            say "could not leave; 'caxton cluster remove' on another node does it, once the others have what it had"
    fi
    sleep "$PAUSE_S"
}

case ${1:-} in
start | stop) "$1" ;;
*)
    echo "usage: node.sh start|stop" >&2
    exit 2
    ;;
esac
