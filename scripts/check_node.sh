#!/usr/bin/env bash
# Says in one sentence what this machine lacks to run a node of a cluster, and fails; says nothing where it has all.
# Must not install anything.
set -euo pipefail

# Each program with the Debian package that has it.
programs="containerd=containerd ctr=containerd runc=runc iptables=iptables conntrack=conntrack ip=iproute2
    nsenter=util-linux unshare=util-linux setpriv=util-linux mount=mount"
plugins=/usr/lib/cni

main() {
    local missing=() entry packages
    for entry in $programs; do
        command -v "${entry%=*}" >/dev/null || missing+=("${entry#*=}")
    done
    [[ -x $plugins/bridge && -x $plugins/host-local ]] || missing+=(containernetworking-plugins)
    command -v buildah >/dev/null || command -v docker >/dev/null || missing+=(buildah)
    if [[ ${#missing[@]} -gt 0 ]]; then
        packages=$(printf '%s\n' "${missing[@]}" | sort --unique | paste --serial --delimiters ' ')
        say_so "these packages (as Debian calls them): $packages"
    elif [[ $(id -u) != 0 ]]; then
        say_so "root, which makes networks and mounts"
    elif ! unshare --mount --net true 2>/dev/null; then
        say_so "the permission to make networks and mounts"
    fi
}

say_so() {
    echo "This machine cannot run a node of a cluster; what it lacks is $1." >&2
    exit 1
}

main
