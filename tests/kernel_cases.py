"""What the kernel tests share: memory layouts, error bounds, thread counts, numerical gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from hypothesis import strategies as st

from minidl._kernels import cpu

DTYPES = (np.float32, np.float64)
TOLERANCE = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-11}


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def every_other(array: np.ndarray) -> np.ndarray:
    spread = np.full((*array.shape[:-1], 2 * array.shape[-1]), 77, array.dtype)
    spread[..., ::2] = array
    return spread[..., ::2]


def unaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.empty(array.nbytes + 1, np.uint8)
    shifted = buffer[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    return shifted


def some_channels(array: np.ndarray) -> np.ndarray:
    if array.ndim < 2:
        return array
    n, c, *size = array.shape
    images = np.full((n, 2 * c + 1, *size), 77, array.dtype)
    images[:, c : 2 * c] = array
    return images[:, c : 2 * c]


# The same values, laid out in memory in different ways.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "read-only": read_only,
    "negative strides": lambda array: array[..., ::-1].copy()[..., ::-1],
    "every other element": every_other,
    "some channels": some_channels,
    "unaligned": unaligned,
}

layouts = st.sampled_from(list(LAYOUTS.values()))
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int, dtype: type = np.float64) -> np.ndarray:
    """Standard normal numbers of this shape; other shapes or dtypes give other numbers."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def assert_close(
    actual: np.ndarray,
    expected: np.ndarray,
    dtype: type | None = None,
    scale: float = 1e-30,
) -> None:
    """Same shape and dtype, NaN in the same places, and a largest error relative to `expected`.

    `scale` is how large the terms are that `expected` is a sum of, where they cancel.
    """
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    tolerance = TOLERANCE[np.dtype(dtype or actual.dtype)]
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=scale)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * float(largest))


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = cpu.get_num_threads()
    cpu.set_num_threads(count)
    try:
        yield
    finally:
        cpu.set_num_threads(before)


def assert_same_bits_for_any_threads(function: Callable[[], object]) -> None:
    """`function` returns an array or a tuple of arrays."""
    results = []
    for count in (1, 2, 3):
        with threads(count):
            results.append(function())
    for other in results[1:]:
        pairs = zip(_as_tuple(results[0]), _as_tuple(other), strict=True)
        for first, second in pairs:
            assert first.tobytes() == second.tobytes()


def _as_tuple(result: object) -> tuple[np.ndarray, ...]:
    return result if isinstance(result, tuple) else (result,)  # type: ignore[return-value]


def assert_gradient(
    forward: Callable[[np.ndarray], np.ndarray],
    x: np.ndarray,
    dy: np.ndarray,
    dx: np.ndarray,
    rtol: float = 1e-6,
) -> None:
    """Compare dx with central differences of sum(dy * forward(x)) along three random directions."""
    for seed in range(3):
        direction = normal(seed, *x.shape)
        h = 1e-6
        change = forward(x + h * direction) - forward(x - h * direction)
        numerical = np.sum(dy * change) / (2 * h)
        scale = np.sum(np.abs(dx * direction))
        np.testing.assert_allclose(np.sum(dx * direction), numerical, rtol=0, atol=rtol * scale)
