#!/usr/bin/env bash
# Says in one sentence what this machine lacks to run a node of a cluster, and fails; says nothing where it has all.
# Must not install anything.
#
# Usage: check_node.sh [--packages]    --packages: only the names of the packages that are missing, as Debian has them
set -euo pipefail

# Each program with the Debian package that has it.
programs="containerd=containerd ctr=containerd runc=runc iptables=iptables conntrack=conntrack ip=iproute2
    nsenter=util-linux unshare=util-linux setpriv=util-linux mount=mount"
plugins=/usr/lib/cni

main() {
    local missing
    missing=$(missing_packages)
    if [[ ${1:-} == --packages ]]; then
        echo "$missing"
    elif [[ -n $missing ]]; then
        say_so "these packages (as Debian calls them): $missing"
    elif [[ $(id -u) != 0 ]]; then
        say_so "root, which makes networks and mounts"
    elif ! unshare --mount --net true 2>/dev/null; then
        say_so "the permission to make networks and mounts"
    elif ! makes_control_groups; then
        say_so "the permission to make control groups below /sys/fs/cgroup"
    fi
}

missing_packages() {
    local entry missing=()
    for entry in $programs; do
        command -v "${entry%=*}" >/dev/null || missing+=("${entry#*=}")
    done
    [[ -x $plugins/bridge && -x $plugins/host-local ]] || missing+=(containernetworking-plugins)
    command -v buildah >/dev/null || docker info >/dev/null 2>&1 || missing+=(buildah)
    [[ ${#missing[@]} == 0 ]] || printf '%s\n' "${missing[@]}" | sort --unique | paste --serial --delimiters ' '
}

# In any hierarchy: with the second version of control groups that is /sys/fs/cgroup itself.
makes_control_groups() {
    local group=/sys/fs/cgroup
    [[ -d $group/memory ]] && group=$group/memory
    mkdir "$group/fedtune-check.$$" 2>/dev/null && rmdir "$group/fedtune-check.$$"
}

say_so() {
    echo "This machine cannot run a node of a cluster; what it lacks is $1." >&2
    exit 1
}

main "$@"
