#!/usr/bin/env bash
# The tests of the kernels under NVIDIA's compute-sanitizer; needs a GPU and the CUDA toolkit.
#     tests/cuda/sanitize.sh [pytest arguments, such as -k conv]
# memcheck: accesses out of bounds; racecheck: shared memory without a barrier in between;
# synccheck: barriers that part of a block waits at; initcheck: reads of memory nobody wrote.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v compute-sanitizer >/dev/null || {
    echo "$0: compute-sanitizer is not on the PATH; it comes with the CUDA toolkit, in its bin folder" >&2
    exit 2
}
for tool in memcheck racecheck synccheck initcheck; do
    printf '\n=== %s\n' "$tool"
    MINIDL_CUDA_SANITIZE=1 compute-sanitizer --tool "$tool" --error-exitcode 1 python -m pytest -m gpu -q tests/cuda \
        --deselect tests/cuda/test_cuda_large.py "$@"
done
