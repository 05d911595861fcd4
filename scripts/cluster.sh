#!/usr/bin/env bash
# Builds the programs of a Kubernetes cluster from their pinned Go modules into .cache/k8s/bin, or CACHE=DIR.
# Must not install or start anything; what is complete already is left alone, also where there is no Go.
#
# Usage: cluster.sh PART...    parts: control-plane, node, helm, kstatus, pretended
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${CACHE:-$root/.cache}
[[ $cache == /* ]] || cache=$PWD/$cache
here=$root/scripts/cluster
# shellcheck source-path=SCRIPTDIR source=setup/say.sh
. "$root/scripts/setup/say.sh"
# shellcheck source-path=SCRIPTDIR source=setup/tools.sh
. "$root/scripts/setup/tools.sh"
# shellcheck source-path=SCRIPTDIR source=cluster/programs.sh
. "$here/programs.sh"
# shellcheck source-path=SCRIPTDIR source=cluster/build.sh
. "$here/build.sh"

main() {
    local part wanted=() missing
    for part in "$@"; do
        if [[ $part == control-plane && -n ${KUBEBUILDER_ASSETS:-} ]]; then
            check_own_programs
        else
            # shellcheck disable=SC2207 # names without spaces
            wanted+=($(programs_of "$part"))
        fi
    done

    missing=$(unbuilt ${wanted[@]+"${wanted[@]}"})
    if [[ -z $missing ]]; then
        [[ ${#wanted[@]} == 0 ]] || say "The cluster's programs are complete: $cache/k8s/bin has ${wanted[*]}."
        return
    fi
    check_go
    lock_programs
    local program
    for program in $missing; do
        build "$program"
    done
    say "The cluster's programs are complete: $cache/k8s/bin, after $SECONDS s."
}

[[ $# -gt 0 ]] || set -- control-plane
main "$@"
