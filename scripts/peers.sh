#!/usr/bin/env bash
# Builds the Python environment of the benchmark's peers in a folder: scripts/peers.sh FOLDER.
# Leaves one alone that has what bench/peers/requirements.txt lists.
set -euo pipefail

folder=$1
wanted=$(cd "$(dirname "$0")/.." && pwd)/bench/peers/requirements.txt
done_mark=$folder/requirements.txt

if cmp --silent "$wanted" "$done_mark"; then
    exit
fi
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check --requirement "$wanted"
cp "$wanted" "$done_mark"
