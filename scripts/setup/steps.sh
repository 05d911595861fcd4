# shellcheck shell=bash
# Makes a folder of the cache whole or not at all, however often it is cut off or started twice.
# Must not know what is in the folder.

# Of the folders named, those that are not there as pinned.
incomplete() {
    local folder
    for folder in "$@"; do
        is_complete "$folder" || printf '%s ' "$folder"
    done
}

is_complete() {
    local stamp
    stamp=$(stamp_of "$1")
    [[ -d $cache/$1 && -f $stamp && $(<"$stamp") == "$(pins_of "$1")" ]]
}

# Builds the folder aside and renames it into place; the stamp, with the pins it was made from, comes last.
bring() {
    local folder=$1 fresh began=$SECONDS
    is_complete "$folder" && return # another set-up was faster
    say "$folder:"
    fresh=$(mktemp -d "$temporary/fresh.XXXXXX")
    fill "$folder" "$fresh"
    chmod 755 "$fresh"

    mkdir -p "$(dirname "$cache/$folder")"
    rm -f "$(stamp_of "$folder")"
    [[ ! -e $cache/$folder ]] || mv "$cache/$folder" "$temporary/${fresh##*/}.old"
    mv "$fresh" "$cache/$folder"
    pins_of "$folder" >"$temporary/stamp"
    mv "$temporary/stamp" "$(stamp_of "$folder")"
    empty_temporary
    say "  $(du -shL "$cache/$folder" | cut -f 1) in $cache/$folder after $((SECONDS - began)) s."
}

pins_of() {
    local package
    for package in $(packages_of "$1"); do
        echo "$package $(pin "$package")"
    done
}

stamp_of() {
    printf '%s/complete/%s' "$cache" "${1//\//-}"
}

# One set-up at a time works on a cache; whatever lies in its temporary folder then is from one that was cut off.
lock_cache() {
    mkdir -p "$cache/complete"
    temporary=$cache/temporary
    exec 9>"$cache/lock"
    if ! flock --nonblock 9; then
        say "Another set-up works on $cache; waiting for it."
        flock 9
    fi
    empty_temporary
    trap 'rm -rf "$temporary"' EXIT
    trap 'say "set-up: stopped; started again it goes on with the folder it was at." >&2; exit 130' INT TERM
}

empty_temporary() {
    rm -rf "$temporary"
    mkdir -p "$temporary"
}
