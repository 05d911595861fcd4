#!/usr/bin/env bash
# Brings the definitions of the Prometheus operator that the chart's objects are held against, from its Go module, to the
# folder named; where it cannot, says so and succeeds.
# Must not install anything.
set -euo pipefail

into=$1
module=github.com/prometheus-operator/prometheus-operator@v0.84.0

give_up() {
    echo "monitoring definitions: $*; tests that use them will say that they skip that part."
    exit 0
}

[[ ! -d $into ]] || exit 0
command -v go >/dev/null || give_up "they come from a Go module, and there is no go"
folder=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p') || give_up "$module cannot be downloaded"
mkdir -p "$into.new"
for kind in podmonitors servicemonitors prometheusrules; do
    cp "$folder/example/prometheus-operator-crd/monitoring.coreos.com_$kind.yaml" "$into.new/"
done
chmod -R u+w "$into.new"
mv "$into.new" "$into"
