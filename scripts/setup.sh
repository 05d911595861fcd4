#!/usr/bin/env bash
# Brings libtorch, two small models and the mail into one folder: .cache, or CACHE=DIR.
#
# Usage: setup.sh [FOLDER...]    folders: libtorch, models/minilm, models/smollm2, mail (all of them where none is
# named), and libtorch-cuda, which the trainer's image for GPUs takes
# Needs no hub and touches nothing outside that folder; what is complete already is left alone.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${CACHE:-$root/.cache}
[[ $cache == /* ]] || cache=$PWD/$cache
here=$root/scripts/setup
# shellcheck source-path=SCRIPTDIR source=setup/say.sh
. "$here/say.sh"
# shellcheck source-path=SCRIPTDIR source=setup/tools.sh
. "$here/tools.sh"
# shellcheck source-path=SCRIPTDIR source=setup/download.sh
. "$here/download.sh"
# shellcheck source-path=SCRIPTDIR source=setup/steps.sh
. "$here/steps.sh"
# shellcheck source-path=SCRIPTDIR source=setup/folders.sh
. "$here/folders.sh"

main() {
    check_build_tools
    local wanted=("$@")
    if [[ $# -eq 0 ]]; then
        wanted=(libtorch models/minilm models/smollm2 mail)
        if [[ -n ${LIBTORCH:-} ]]; then
            check_own_libtorch
            wanted=("${wanted[@]:1}")
        fi
    fi

    local missing
    missing=$(incomplete "${wanted[@]}")
    if [[ -z $missing ]]; then
        say "Set-up is complete: $cache has ${wanted[*]}."
        return
    fi
    check_download_tools "$missing"
    lock_cache
    local folder
    for folder in $missing; do
        bring "$folder"
    done
    say "Set-up is complete: $cache, after $SECONDS s."
}

main "$@"
