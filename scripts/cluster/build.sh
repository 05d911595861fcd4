# shellcheck shell=bash
# Builds one program whole or not at all, however often it is cut off or started twice.
# Must not know what the programs are for.

# Of the programs named, those that are not there as pinned.
unbuilt() {
    local program
    for program in "$@"; do
        is_built "$program" || printf '%s ' "$program"
    done
}

is_built() {
    local stamp
    stamp=$(stamp_of "$1")
    [[ -x $cache/k8s/bin/$1 && -f $stamp && $(<"$stamp") == "$(pins_of "$1")" ]]
}

# Go keeps what it has compiled, so that a build that was cut off goes on; the stamp comes last.
build() {
    local program=$1 began=$SECONDS
    is_built "$program" && return # another build was faster
    say "$program: building from its Go module ..."
    (cd "$here/$(module_of "$program")" &&
        CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -p "$(nproc)" -trimpath -buildvcs=false \
            -ldflags "-s -w $(linker_flags_of "$program")" -o "$cache/k8s/temporary/$program" \
            "$(package_of "$program")") >"$cache/k8s/temporary/log" 2>&1 || {
        tail -n 20 "$cache/k8s/temporary/log" >&2
        die "$program does not build; Go's own words are above."
    }

    rm -f "$(stamp_of "$program")"
    mv "$cache/k8s/temporary/$program" "$cache/k8s/bin/$program"
    pins_of "$program" >"$cache/k8s/temporary/stamp"
    mv "$cache/k8s/temporary/stamp" "$(stamp_of "$program")"
    say "  $(du -h "$cache/k8s/bin/$program" | cut -f 1) in $cache/k8s/bin/$program after $((SECONDS - began)) s."
}

# What a program was built from: a line changed in go.mod, go.sum, a source of our own or its flags builds it anew.
pins_of() {
    local module
    module=$here/$(module_of "$1")
    echo "$(find "$module" -maxdepth 1 \( -name 'go.*' -o -name '*.go' \) | sort | xargs cat | sha256sum | cut -d ' ' -f 1) $(package_of "$1") $(linker_flags_of "$1")"
}

stamp_of() {
    printf '%s/k8s/complete/%s' "$cache" "$1"
}

# One build at a time works on a cache; what lies in its temporary folder then is from one that was cut off.
lock_programs() {
    mkdir -p "$cache/k8s/bin" "$cache/k8s/complete"
    exec 8>"$cache/k8s/lock"
    if ! flock --nonblock 8; then
        say "Another build works on $cache/k8s; waiting for it."
        flock 8
    fi
    rm -rf "$cache/k8s/temporary"
    mkdir -p "$cache/k8s/temporary"
    trap 'rm -rf "$cache/k8s/temporary"' EXIT
    trap 'say "stopped; started again it goes on where it was." >&2; exit 130' INT TERM
}

# go.mod says which Go it needs; Go 1.21 and later bring that one by themselves.
check_go() {
    local have
    need go "builds the cluster's programs" \
        "install Go 1.24 or newer (go.dev), or set KUBEBUILDER_ASSETS to a folder that has etcd, kube-apiserver and kubectl"
    need flock 'keeps two builds apart' "$(from_system util-linux)"
    have=$(go env GOVERSION)
    at_least 1.21 "${have#go}" || die "this Go is ${have#go}, and 1.24 or newer is needed: install it from go.dev."
}

# The folder that other controllers' tests use, too.
check_own_programs() {
    local program
    for program in $(programs_of control-plane); do
        [[ -x $KUBEBUILDER_ASSETS/$program ]] ||
            die "KUBEBUILDER_ASSETS is set to $KUBEBUILDER_ASSETS, which has no $program: set it to a folder that has $(programs_of control-plane), or unset it."
    done
    say "The control plane: $KUBEBUILDER_ASSETS is used as it is, because KUBEBUILDER_ASSETS is set."
}
