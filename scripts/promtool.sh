#!/usr/bin/env bash
# Brings promtool, which the tests hold a scrape against, to the file named; where it cannot, says so and succeeds.
# Must not install anything: it unpacks one file of the system's own package, which apt has checked. Needs no root.
set -euo pipefail

into=$1
[[ $into == /* ]] || into=$PWD/$into
give_up() {
    echo "promtool: $*; tests that use it will say that they skip that part."
    exit 0
}

if command -v promtool >/dev/null; then
    exit 0
fi
for tool in apt-get dpkg-deb tar; do
    command -v "$tool" >/dev/null || give_up "there is none, and no $tool to bring it"
done

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
mkdir -p "$temporary/lists/partial" "$temporary/cache/archives/partial" "$(dirname "$into")"
# The system's sources and keys; lists and files of our own, which take no right to write elsewhere.
apt() {
    apt-get -qq -o Dir::State::Lists="$temporary/lists" -o Dir::Cache="$temporary/cache" -o APT::Sandbox::User=root \
        -o Acquire::Languages=none -o Acquire::Retries=1 "$@" >"$temporary/log" 2>&1
}

echo "promtool: from the package prometheus, 19 MB ..."
cd "$temporary"
apt update && apt download prometheus || give_up "apt-get cannot bring it: $(tail -n 1 "$temporary/log")"
dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool || give_up "it is not in the package"
# Renamed into place, so that it is there whole or not at all.
mv usr/bin/promtool "$into.new"
mv "$into.new" "$into"
