#!/usr/bin/env bash
# Says a command, runs it, and says how long it took; its exit status is the command's.
set -uo pipefail

printf '\n$ %s\n' "$*"
"$@"
status=$?
printf '(%d min %02d s)\n' $((SECONDS / 60)) $((SECONDS % 60))
exit $status
