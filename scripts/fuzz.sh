#!/usr/bin/env bash
# Runs the fuzz targets for SECONDS each, all of them or those named after it, with the cargo-fuzz that CARGO_FUZZ names.
set -euo pipefail

if [ $# -lt 1 ]; then
    echo "usage: scripts/fuzz.sh SECONDS [TARGET ...]" >&2
    exit 2
fi
seconds=$1
shift

cd "$(dirname "$0")/.."
fuzz=$(realpath "$CARGO_FUZZ")
cd fuzz
sanitizer=${SANITIZER:-address}
if [ $# -eq 0 ]; then
    mapfile -t targets < <(basename --suffix=.rs -a fuzz_targets/*.rs)
else
    targets=("$@")
fi

# The sanitizer's switch is not stable yet; the compiler is the project's own all the same.
export RUSTC_BOOTSTRAP=1
# libtorch keeps what it allocates at the start.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=0}

# Some targets write a file for each input: in memory that is twenty times as fast.
if [ -d /dev/shm ] && [ -z "${TMPDIR:-}" ]; then
    export TMPDIR=/dev/shm
fi

# What is found is kept out of the tree, so that the corpus there stays small.
for target in "${targets[@]}"; do
    found=../target/fuzz/corpus/$target
    mkdir -p "$found"
    echo "fuzzing $target for $seconds s"
    if ! "$fuzz" run --sanitizer "$sanitizer" --target-dir ../target/fuzz "$target" "$found" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=16384 -timeout=20 -malloc_limit_mb=512 -rss_limit_mb=4096 \
        -print_final_stats=1; then
        echo "fuzzing $target: FAILED; the input lies in fuzz/artifacts/$target/: mend what it found," >&2
        echo "and keep it as fuzz/corpus/$target/found-WHAT, so that a test runs it from now on" >&2
        exit 1
    fi
done
