#!/usr/bin/env bash
# Compares a committed file with what the command that generates it prints now; changes no file.
#
#     check_generated.sh FILE COMMAND...
set -euo pipefail

committed=$1
shift
if ! "$@" | diff -u "$committed" -; then
    echo "$committed is not what is generated now: run 'make generate' and commit the result." >&2
    exit 1
fi
