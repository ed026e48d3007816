"""The one function of cuBLAS that minidl calls, on main memory: products of strided matrices.

Matrices are column by column, as cuBLAS has them. What cuBLAS refuses or leaves undefined is an
error here.
"""

import ctypes

import ml_dtypes
import numpy as np

DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77


def tf32(array):
    """float32 with the 13 last bits rounded off, ties away from 0."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def gemmStridedBatchedEx(
    handle, trans_a, trans_b, m, n, k, alpha, a, type_a, ld_a, step_a, b, type_b, ld_b, step_b,
    beta, c, type_c, ld_c, step_c, batch, compute, algorithm,
):  # fmt: skip
    """C[i] = alpha op(A[i]) op(B[i]) + beta C[i] for i < batch; C is m x n."""
    assert handle == "handle"
    assert algorithm == -1
    assert (type_a, type_b) in ((0, 0), (1, 1), (2, 2), (14, 14))
    assert type_c in (type_a, 0)
    assert (
        compute == COMPUTE_64F if type_a == 1 else compute in (COMPUTE_32F, COMPUTE_32F_FAST_TF32)
    )
    assert type_a == 0 or compute != COMPUTE_32F_FAST_TF32
    assert min(m, n, k, batch) > 0
    assert max(m, n, k, batch, ld_a, ld_b, ld_c) < 1 << 31
    assert batch == 1 or step_c >= ld_c * (n - 1) + m or (step_c > 0 and ld_c >= m)
    real = ctypes.c_double if type_a == 1 else ctypes.c_float
    alpha, beta = (real.from_address(address).value for address in (alpha, beta))
    left = _matrices(a, DTYPES[type_a], (k, m) if trans_a else (m, k), ld_a, step_a, batch)
    right = _matrices(b, DTYPES[type_b], (n, k) if trans_b else (k, n), ld_b, step_b, batch)
    out = _matrices(c, DTYPES[type_c], (m, n), ld_c, step_c, batch)
    left, right = (
        np.swapaxes(matrices, 1, 2) if transposed else matrices
        for matrices, transposed in ((left, trans_a), (right, trans_b))
    )
    wide = np.float64 if type_a == 1 else np.float32
    left, right = left.astype(wide), right.astype(wide)
    if compute == COMPUTE_32F_FAST_TF32:
        left, right = tf32(left), tf32(right)
    with np.errstate(all="ignore"):
        product = wide(alpha) * np.matmul(left, right)
        if beta != 0:  # otherwise C is not read
            product += wide(beta) * out.astype(wide)
        out[...] = product.astype(out.dtype)


def _matrices(address, dtype, shape, leading, step, batch):
    """(batch, rows, cols) over memory, in which a column is consecutive."""
    rows, cols = shape
    assert leading >= rows
    item = np.dtype(dtype).itemsize
    size = (batch - 1) * step + (cols - 1) * leading + rows
    memory = (ctypes.c_char * (size * item)).from_address(address)
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(memory, dtype), (batch, rows, cols), (step * item, item, leading * item)
    )
