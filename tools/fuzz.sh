#!/bin/sh
# What reads messages under libFuzzer (atheris) with the sanitizers on: builds, writes the corpus, runs.
#
#   tools/fuzz.sh [--target feed|rows] [--seconds N] [libFuzzer arguments]        default feed, 600 seconds
#
# Needs clang with its runtime (Debian: clang-16 libclang-rt-16-dev), the `dev` extra, and `pip install atheris`.
set -eu
cd "$(dirname "$0")/.."
seconds=600
target=feed
if [ "${1:-}" = "--target" ]; then
    target=$2
    shift 2
fi
if [ "${1:-}" = "--seconds" ]; then
    seconds=$2
    shift 2
fi
python=${PYTHON:-python}
out=${HLCONN_FUZZ_DIR:-build/fuzz}
for clang in ${CC:-} clang-16 clang; do
    command -v "$clang" >/dev/null && break
done
mkdir -p "$out/corpus" "$out/findings"
CC=$clang "$python" -m pip install --quiet --no-build-isolation --no-deps --upgrade --target "$out/site" \
    --config-settings=build-dir="$out/cmake" --config-settings=install.strip=false --config-settings=cmake.define.HLCONN_SANITIZE=fuzzer \
    --config-settings=cmake.define.CMAKE_C_FLAGS="-fsanitize-ignorelist=$PWD/fuzz/ubsan_ignore.txt" .
cp tools/asan_sitecustomize.py "$out/site/sitecustomize.py"
"$python" tests/captures.py "$out/corpus"
runtime=$("$python" -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so
PYTHONPATH="$out/site" PYTHONMALLOC=malloc LD_PRELOAD="$runtime" ASAN_OPTIONS=detect_leaks=0 \
    "$python" "fuzz/fuzz_$target.py" -max_total_time="$seconds" -dict=fuzz/hlconn.dict -artifact_prefix="$out/findings/" \
    -print_final_stats=1 "$out/corpus" "$@"
