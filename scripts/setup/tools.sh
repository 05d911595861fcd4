# shellcheck shell=bash
# Names the tool that is missing, before any time is spent on a download.
# Must not install anything: how a machine gets its tools is its owner's choice.

check_build_tools() {
    need cargo 'builds everything' "install Rust $(rust_version) or newer with rustup (rustup.rs)"
    need c++ 'compiles the binding to libtorch' "$(from_system g++)"
    local have
    have=$(cargo --version | cut -d ' ' -f 2)
    at_least "$(rust_version)" "$have" ||
        die "this Rust is $have, and $(rust_version) or newer is needed: update it with 'rustup update', or install it with rustup (rustup.rs)."
}

# Only what the missing folders take: a machine whose cache was brought along needs neither pip nor npm.
check_download_tools() {
    need python3 'unpacks what is downloaded' "$(from_system python3)"
    need flock 'keeps two set-ups apart' "$(from_system util-linux)"
    need sha256sum 'checks what is downloaded' "$(from_system coreutils)"
    if [[ $1 == *libtorch* || $1 == *models* ]]; then
        python3 -m pip --version >/dev/null 2>&1 ||
            die "pip is missing, which downloads libtorch and the models: $(from_system python3-pip)."
    fi
    if [[ $1 == *mail* ]]; then
        need npm 'downloads the mail' "$(from_system npm)"
    fi
    if [[ $1 == *libtorch* ]]; then
        check_machine
    fi
}

# The one libtorch that set-up can bring is built for x86-64 Linux with glibc.
check_machine() {
    local machine libc
    machine="$(uname -s) $(uname -m)"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc='no glibc'
    if [[ $machine != 'Linux x86_64' ]] || ! at_least 2.28 "${libc#glibc }"; then
        die "this machine is $machine with $libc, and the libtorch that set-up brings needs x86-64 Linux with glibc 2.28" \
            "or newer: set LIBTORCH to the folder of a libtorch 2.13 made for this machine."
    fi
}

check_own_libtorch() {
    [[ -e $LIBTORCH/lib/libtorch_cpu.so ]] ||
        die "LIBTORCH is set to $LIBTORCH, which has no lib/libtorch_cpu.so: set it to the folder of a libtorch 2.13, or unset it."
    say "libtorch: $LIBTORCH is used as it is, because LIBTORCH is set."
}

need() {
    command -v "$1" >/dev/null || die "$1 is missing, which $2: $3."
}

from_system() {
    printf "install it with 'sudo apt-get install %s' or your system's own package manager" "$1"
}

rust_version() {
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$root/Cargo.toml"
}

# at_least LOWEST VERSION
at_least() {
    [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}
