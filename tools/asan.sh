#!/bin/sh
# The tests of the compiled core under AddressSanitizer and UndefinedBehaviorSanitizer, in a build of its own.
#
#   tools/asan.sh [pytest arguments]        needs gcc with libasan and libubsan, and the `dev` extra of pyproject.toml
#
# PYTHONMALLOC=malloc: without it Python's own allocator hides reads past the end of small objects. --capture=sys: a
# report is written to the file descriptor just before the process ends, where pytest would keep it to itself.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
out=${HLCONN_ASAN_DIR:-build/asan}
mkdir -p "$out"
"$python" -m pip install --quiet --no-build-isolation --no-deps --upgrade --target "$out/site" \
    --config-settings=build-dir="$out/cmake" --config-settings=install.strip=false \
    --config-settings=cmake.define.HLCONN_SANITIZE=ON --config-settings=cmake.define.HLCONN_CHECKED="${HLCONN_CHECKED:-OFF}" .
cp tools/asan_sitecustomize.py "$out/site/sitecustomize.py"
cc=${CC:-gcc}
# pycryptodome (of eth-account) opens its libraries in a way that the sanitizers refuse, unless told not to
PYCRYPTODOME_DISABLE_DEEPBIND=1 \
PYTHONPATH="$out/site" PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 \
    LD_PRELOAD="$("$cc" -print-file-name=libasan.so) $("$cc" -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1 \
    "$python" -c '
import sys, pytest
from hlconn._core import _build
assert _build.SANITIZED, "not the sanitized build: " + _build.__file__
sys.exit(pytest.main(sys.argv[1:]))' -q --capture=sys tests/_core "$@"
