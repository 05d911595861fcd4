#!/usr/bin/env bash
# Brings prometheus and promtool, which the tests hold scrapes, alerts and dashboards against, to the folder named; where
# it cannot, says so and succeeds.
# Must not install anything: it unpacks two files of the system's own package, which apt has checked. Needs no root.
set -euo pipefail

into=$1
[[ $into == /* ]] || into=$PWD/$into
give_up() {
    echo "prometheus: $*; tests that use it will say that they skip that part."
    exit 0
}

if command -v promtool >/dev/null && command -v prometheus >/dev/null; then
    exit 0
fi
for tool in apt-get dpkg-deb tar; do
    command -v "$tool" >/dev/null || give_up "there is none, and no $tool to bring it"
done

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary/lists/partial" "$temporary/cache/archives/partial" "$into"
# The system's sources and keys; lists and files of our own, which take no right to write elsewhere.
apt() {
    apt-get -qq -o Dir::State::Lists="$temporary/lists" -o Dir::Cache="$temporary/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=1 "$@" >"$temporary/log" 2>&1
}

echo "prometheus: from the package of that name, 19 MB ..."
cd "$temporary"
apt update && apt download prometheus || give_up "apt-get cannot bring it: $(tail -n 1 "$temporary/log")"
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool ./usr/bin/prometheus ||
    give_up "it is not in the package"
# Renamed into place, so that each is there whole or not at all.
for tool in promtool prometheus; do
    mv "usr/bin/$tool" "$into/$tool.new"
    mv "$into/$tool.new" "$into/$tool"
done
