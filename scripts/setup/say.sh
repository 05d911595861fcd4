# shellcheck shell=bash
# The two ways in which set-up speaks: progress on stdout, and one last sentence on stderr.
# Must not decide anything.

say() {
    printf '%s\n' "$*"
}

die() {
    printf 'set-up: %s\n' "$*" >&2
    exit 1
}
