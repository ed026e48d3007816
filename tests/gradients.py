"""Derivatives by central differences: the independent witness against which operations are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import minidl as md

Arrays = Sequence[np.ndarray]


def check_gradients(
    fn: Callable[..., md.Tensor | tuple[md.Tensor, ...]],
    *arrays: np.ndarray,
    second: bool = True,
    step: float = 1e-5,
    tolerance: float = 1e-6,
) -> None:
    """Compare the gradients of `fn` at float64 `arrays` with central differences.

    The upstream gradient is random. With `second` the gradient, as a function of the arrays and
    of the upstream gradient, is held against central differences in the same way.
    """
    rng = np.random.default_rng(7)
    outputs = _outputs(fn, arrays)
    upstream = [rng.standard_normal(y.shape) for y in outputs]
    _compare(fn, arrays, step, tolerance)
    if second:

        def gradient(*tensors: md.Tensor) -> tuple[md.Tensor, ...]:
            inputs, weights = tensors[: len(arrays)], tensors[len(arrays) :]
            y = fn(*inputs)
            y = y if isinstance(y, tuple) else (y,)
            found = md.grad(y, inputs, weights, create_graph=True, allow_unused=True)
            return tuple(
                md.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)
            )

        _compare(gradient, [*arrays, *upstream], step, tolerance)


def _outputs(fn: Callable[..., object], arrays: Arrays) -> tuple[md.Tensor, ...]:
    y = fn(*[md.tensor(a, requires_grad=True) for a in arrays])
    return y if isinstance(y, tuple) else (y,)  # type: ignore[return-value]


def _compare(fn: Callable[..., object], arrays: Arrays, step: float, tolerance: float) -> None:
    rng = np.random.default_rng(11)
    arrays = [np.asarray(a, dtype=np.float64) for a in arrays]
    before = [a.copy() for a in arrays]
    inputs = [md.tensor(a, requires_grad=True) for a in arrays]
    outputs = fn(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = [rng.standard_normal(y.shape) for y in outputs]
    pairs = [(y, md.tensor(v)) for y, v in zip(outputs, upstream, strict=True) if y.requires_grad]
    found: Sequence[md.Tensor | None] = [None] * len(inputs)
    if pairs:
        found = md.grad([y for y, _ in pairs], inputs, [v for _, v in pairs], allow_unused=True)

    def projected(changed: Arrays) -> float:
        return sum(
            float((y.data * v).sum()) for y, v in zip(_outputs(fn, changed), upstream, strict=True)
        )

    for i, array in enumerate(arrays):
        expected = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            moved = [a.copy() for a in arrays]
            moved[i][place] = array[place] + step
            above = projected(moved)
            moved[i][place] = array[place] - step
            expected[place] = (above - projected(moved)) / (2 * step)
        got = found[i]
        got = np.zeros_like(array) if got is None else got.data
        assert got.shape == array.shape
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale)
    for array, kept in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, kept)
