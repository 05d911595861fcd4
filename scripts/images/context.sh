# shellcheck shell=bash
# Builds what goes into an image and lays it into the build's context.
# Must not write anywhere else but to cargo's own folder.

fill_pause() {
    need cc 'compiles the image of pauses' "$(from_system gcc)"
    cc -Os -static -s -o "$context/pause" "$root/images/pause.c"
}

# Static with glibc: it resolves names by itself. A target of its own, so that build scripts stay as they are.
# fill_operator [SOURCE]: from this source, or another
fill_operator() {
    local triple source=${1:-$root}
    triple=$(rustc -vV | sed -n 's/^host: //p')
    (cd "$source" && RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' \
        cargo build ${CI:+--locked} --profile "$profile" --package fedtune-operator --target "$triple" --target-dir "$target/static")
    cp "$target/static/$triple/$(folder_of_profile)/fedtune-operator" "$context/"
}

# With the features that `make smoke` or `make test` has built already.
scope_of_trainer() {
    if [[ $profile == dev ]]; then echo --workspace; else echo '--package fedtune'; fi
}

# Where cargo leaves what it built.
folder_of_profile() {
    if [[ $profile == dev ]]; then echo debug; else echo "$profile"; fi
}

# fill_trainer cpu|cuda: the program, and the libraries of the libtorch that it was built with
fill_trainer() {
    local libtorch=${LIBTORCH:-$cache/libtorch} of_its_own=$target
    if [[ $1 == cuda ]]; then
        libtorch=${LIBTORCH_CUDA:-$cache/libtorch-cuda}
        # Beside the other build: each would throw the other's away.
        of_its_own=$target/cuda
    fi
    [[ -e $libtorch/lib/libtorch_$1.so ]] || die "there is no lib/libtorch_$1.so in $libtorch; run make setup or make image-cuda."
    (cd "$root" && LIBTORCH=$libtorch cargo build ${CI:+--locked} --profile "$profile" $(scope_of_trainer) --bin fedtune \
        --target-dir "$of_its_own")
    cp "$of_its_own/$(folder_of_profile)/fedtune" "$context/fedtune-$1"
    strip "$context/fedtune-$1"
    mkdir "$context/libtorch-$1"
    # Links where the disk allows it: half a gigabyte, or several.
    cp -a --link "$libtorch"/lib/*.so* "$context/libtorch-$1/" 2>/dev/null ||
        cp -a "$libtorch"/lib/*.so* "$context/libtorch-$1/"
}
