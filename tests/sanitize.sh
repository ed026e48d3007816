#!/usr/bin/env bash
# The kernels' tests with address and undefined-behaviour sanitizers: tests/sanitize.sh [PYTHON]
#
# Builds the kernels in a temporary folder so that the first access outside an array, the first
# misaligned pointer and the first overflow of a signed number end the process, then runs their
# tests, a few examples each, with every instruction set.
# Needs GCC on Linux, and a Python with numpy, cython, setuptools, pytest and hypothesis.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "$(command -v "${1:-python3}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -c --exclude='*.so' --exclude=__pycache__ minidl tests setup.py pyproject.toml README.md |
    tar -x -C "$work"
cd "$work"
MINIDL_SANITIZE=1 "$python" setup.py -q build_ext --inplace >build.log 2>&1 ||
    { tail -n 40 build.log; exit 1; }

# Python itself is not instrumented: it must load the sanitizers first, and take its small blocks
# of memory from them too. What it does not give back at its end is not a leak of the kernels, and
# the tests ask for more memory than there is. Reports go to the terminal, past pytest (-s).
for isa in best avx2 portable; do
    echo "sanitized kernels, instruction set: $isa"
    [ "$isa" = best ] || export MINIDL_ISA=$isa
    env PYTHONPATH="$work" LD_PRELOAD="$(gcc -print-file-name=libasan.so)" PYTHONMALLOC=malloc \
        ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
        UBSAN_OPTIONS=print_stacktrace=1 MINIDL_TEST_EXAMPLES=4 \
        "$python" -m pytest -q -s -p no:cacheprovider -k "not pytorch and not documented" \
        tests/test_kernels_{buffers,conv,elementwise,norm,optim,pool,rows}.py
done
