#!/usr/bin/env bash
# Compares the committed custom resource definition with what the types generate now; changes no file.
set -euo pipefail

committed=$1
if ! diff -u "$committed" <(cargo run -q -p fedtune-operator -- crd); then
    echo "$committed is not what the types in crds/ generate: run 'make generate' and commit the result." >&2
    exit 1
fi
