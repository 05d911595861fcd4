#!/usr/bin/env bash
# Checks on the text of the repository that neither rustfmt nor clippy makes.
set -euo pipefail

check_no_machine_paths() {
    if git grep -nIE '(^|[^[:alnum:]_.-])/(work|root|home)/'; then
        echo "The lines above hold an absolute path of one machine: make it relative, or name the setting it comes from." >&2
        return 1
    fi
}

check_shell_scripts() {
    if ! command -v shellcheck >/dev/null; then
        echo "shellcheck is not installed; the shell scripts were not checked."
        return
    fi
    shellcheck --external-sources --check-sourced scripts/*.sh .ci/run
}

check_no_machine_paths
check_shell_scripts
