"""Matrix products by cuBLAS, called directly.

`cupy.matmul` would copy transposed operands of a batch, cannot add to what is there, and takes the
arithmetic of float32 from an environment variable; cuBLAS takes all three as arguments. Without
`allow_tf32` float32 is multiplied as float32. 16-bit products are summed in float32.
cuBLAS repeats its bits as long as the GPU and its version stay the same.
"""

from typing import Any

import cupy as cp
import numpy as np

from ..algorithm import get_allow_tf32

__all__ = ["multiply"]

# cudaDataType_t
DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
# cublasComputeType_t
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
NOT_TRANSPOSED, TRANSPOSED = 0, 1
DEFAULT_ALGORITHM = -1


def multiply(
    a: Any, b: Any, out: Any, accumulate: bool = False, allow_tf32: bool | None = None
) -> None:
    """out = a @ b, or out += a @ b.

    a (B, M, K), b (B, K, N), out (B, M, N), all of one dtype but for `out`, which may be float32
    where a and b have 16 bits. In each matrix one axis is consecutive in memory (in `out`, the
    last). A batch of one, in a or b, serves every matrix of the other. `allow_tf32` is that of
    `md.config` unless given.
    """
    batch, m, n = out.shape
    k = a.shape[2]
    if out.size == 0:
        return
    if k == 0:
        if not accumulate:
            out.fill(0)
        return
    dtype = a.dtype.name
    double = dtype == "float64"
    real = np.float64 if double else np.float32
    one, factor = np.array(1, real), np.array(int(accumulate), real)
    compute = COMPUTE_64F if double else COMPUTE_32F
    if dtype == "float32" and (get_allow_tf32() if allow_tf32 is None else allow_tf32):
        compute = COMPUTE_32F_FAST_TF32
    transpose_a, lda = _leading(a)
    transpose_b, ldb = _leading(b)
    # cuBLAS counts columns first: to it our matrices are transposed, and out' = b' a'.
    cp.cuda.cublas.gemmStridedBatchedEx(
        cp.cuda.get_cublas_handle(),
        transpose_b,
        transpose_a,
        n,
        m,
        k,
        one.ctypes.data,
        b.data.ptr,
        DATA_TYPES[dtype],
        ldb,
        _distance(b),
        a.data.ptr,
        DATA_TYPES[dtype],
        lda,
        _distance(a),
        factor.ctypes.data,
        out.data.ptr,
        DATA_TYPES[out.dtype.name],
        max(n, out.strides[1] // out.itemsize),
        _distance(out),
        batch,
        compute,
        DEFAULT_ALGORITHM,
    )


def _leading(matrices: Any) -> tuple[int, int]:
    """Whether cuBLAS has to transpose, and the distance of rows (or of columns)."""
    rows, cols = matrices.shape[1:]
    row_step, col_step = (step // matrices.itemsize for step in matrices.strides[1:])
    if col_step == 1 or cols == 1:
        return NOT_TRANSPOSED, max(cols, row_step if rows > 1 else 0)
    return TRANSPOSED, max(rows, col_step if cols > 1 else 0)


def _distance(matrices: Any) -> int:
    """From one matrix of the batch to the next; one matrix alone serves the whole batch."""
    return 0 if matrices.shape[0] == 1 else matrices.strides[0] // matrices.itemsize
