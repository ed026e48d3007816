"""What the tests of CUDA kernels share: memory layouts on the GPU, dtypes, orders of threads."""

import importlib
from contextlib import contextmanager

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
ALL_DTYPES = (*DTYPES, np.dtype(np.float16), BFLOAT16)
# Units in the last place; what a test allows is a multiple of these.
EPSILON = {dtype: float(ml_dtypes.finfo(dtype).eps) for dtype in ALL_DTYPES}

dtypes = st.sampled_from(DTYPES)
all_dtypes = st.sampled_from(ALL_DTYPES)
orders = st.sampled_from(["ascending", "descending", "shuffled"])
layouts = st.sampled_from(["contiguous", "shifted", "every other", "transposed"])


@contextmanager
def threads(cuda, order):
    """With grids of at most three blocks; the emulator runs its threads in this order."""
    emulator, modules = importlib.import_module("emulator"), cuda.module("modules")
    before = emulator.order, modules.MAX_BLOCKS
    emulator.order, modules.MAX_BLOCKS = order, 3
    try:
        yield
    finally:
        emulator.order, modules.MAX_BLOCKS = before


def placed(cuda, array, layout="contiguous"):
    """A copy of a NumPy array on the GPU, laid out in memory in one of several ways."""
    if layout == "shifted":  # contiguous, but not aligned to 16 bytes
        return cuda.array(np.append(array.dtype.type(77), array))[1:].reshape(array.shape)
    if layout == "every other" and array.ndim:
        spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), 77, array.dtype)
        spread[..., ::2] = array
        return cuda.array(spread)[..., ::2]
    if layout == "transposed" and array.ndim:
        return cuda.array(array.T).T
    return cuda.cupy.array(np.require(array, requirements="C"))  # also without axes


def exact(*arrays):
    """In float64, for the reference; None stays."""
    return [None if array is None else array.astype(np.float64) for array in arrays]


def assert_near(cuda, actual, expected, dtype, units, scale=0.0):
    """`actual` has this dtype and is within `units` of expected's largest value, or of `scale`."""
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)]).max(initial=max(scale, 1e-30))
    found = cuda.numpy(actual).astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=units * EPSILON[dtype] * finite)
