#!/usr/bin/env bash
# Builds the images with buildah or docker and leaves each as an archive in .cache/images, or CACHE=DIR.
# Must not push anything, nor start a container engine.
#
# Usage: images.sh IMAGE...    images: operator, trainer, trainer-cuda, pause, and operator@RELEASE: as in operator@v0.1.0
# BASE=IMAGE      what the trainer's image stands on; where it cannot be pulled, a Debian is made by debootstrap
# LIBTORCH=DIR    a libtorch 2.13 to build the trainer with, instead of the one that set-up brings
# LIBTORCH_CUDA=DIR  the same for trainer-cuda: one that was built for CUDA
# PROFILE=dev     unoptimised programs, which are built sooner
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${CACHE:-$root/.cache}
[[ $cache == /* ]] || cache=$PWD/$cache
images=$cache/images
target=${CARGO_TARGET_DIR:-$root/target}
profile=${PROFILE:-release}
# shellcheck source-path=SCRIPTDIR source=setup/say.sh
. "$root/scripts/setup/say.sh"
# shellcheck source-path=SCRIPTDIR source=setup/tools.sh
. "$root/scripts/setup/tools.sh"
# shellcheck source-path=SCRIPTDIR source=images/context.sh
. "$root/scripts/images/context.sh"
# shellcheck source-path=SCRIPTDIR source=images/engine.sh
. "$root/scripts/images/engine.sh"

main() {
    local image
    choose_engine
    mkdir -p "$images"
    context=$(mktemp -d "$images/context.XXXXXX")
    trap 'rm -rf "$context" "$context.base"' EXIT
    for image in "$@"; do
        rm -rf "${context:?}"/*
        case $image in
            pause) build_pause ;;
            operator) build_operator ;;
            operator@*) build_operator_of "${image#operator@}" ;;
            trainer) build_trainer cpu ;;
            trainer-cuda) build_trainer cuda ;;
            *) die "there is no image $image; there are operator, operator@RELEASE, trainer, trainer-cuda and pause." ;;
        esac
    done
}

build_pause() {
    fill_pause
    make_image pause pause localhost/pause:1
}

build_operator() {
    fill_operator
    make_image operator operator "localhost/fedtune-operator:$(version)"
}

# build_operator_of RELEASE: as it was then, its source left in the cache: its chart goes with it
build_operator_of() {
    local source=$cache/releases/$1 commit
    commit=$(commit_of_release "$1")
    [[ $commit ]] || die "there is neither a tag $1 nor its commit in this clone: git fetch --tags --unshallow brings them."
    rm -rf "$source" && mkdir -p "$source"
    git -C "$root" archive "$commit" | tar --extract --directory "$source"
    fill_operator "$source"
    make_image operator "operator-$1" "localhost/fedtune-operator:$1"
}

# By its tag, else by the subject of its commit: a clone may have come without tags.
commit_of_release() {
    git -C "$root" rev-parse --quiet --verify "$1^{commit}" ||
        git -C "$root" log --max-count=1 --format=%H --grep="^Release $1\$"
}

# build_trainer cpu|cuda
build_trainer() {
    local suffix=
    [[ $1 == cpu ]] || suffix=-$1
    fill_trainer "$1"
    make_image trainer "trainer$suffix" "localhost/fedtune:$(version)$suffix" \
        --build-arg "TORCH=$1" --build-arg "BASE=$(base)"
}

version() {
    sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml"
}

labels=(--build-arg "VERSION=$(version)" --build-arg "REVISION=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)")
[[ $# -gt 0 ]] || set -- operator trainer pause
main "$@"
