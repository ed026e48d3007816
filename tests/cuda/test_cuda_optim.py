"""CUDA optimiser steps against the NumPy specification and the CPU."""

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from cuda_cases import ALL_DTYPES, all_dtypes, assert_near, exact, layouts, orders, placed, threads
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import normal, seeds
from test_kernels_optim import STEPS, run

from minidl._kernels import cpu, reference

steps = pytest.mark.parametrize("name", list(STEPS))
shapes = st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple) | st.just((1030,)), max_size=5)


def start(name, seed, shape, dtype):
    """A parameter, its gradient and non-negative states."""
    arrays = [np.asarray(normal(seed + i, *shape)).astype(dtype) for i in range(2)]
    count = STEPS[name][1]
    return *arrays, *(np.abs(normal(seed + 2 + i, *shape)).astype(dtype) for i in range(count))


def step(kernels, name, tensors):
    """One step of lists (parameter, gradient, *states)."""
    params, grads = ([tensor[i] for tensor in tensors] for i in (0, 1))
    run(kernels, name, params, grads, [list(tensor[2:]) for tensor in tensors])


@steps
@given(shapes=shapes, seed=seeds, dtype=all_dtypes, layout=layouts, order=orders)
def test_step(cuda, name, shapes, seed, dtype, layout, order):
    tensors = [start(name, seed + i, shape, dtype) for i, shape in enumerate(shapes)]
    on_gpu = [[placed(cuda, array, layout) for array in arrays] for arrays in tensors]
    with threads(cuda, order):
        step(cuda.kernels, name, on_gpu)
    expected = [exact(*map(np.array, arrays)) for arrays in tensors]
    step(reference, name, expected)
    for found, arrays in zip(on_gpu, expected, strict=True):
        for one, other in zip(found, arrays, strict=True):
            assert_near(cuda, one, other, dtype, 8, scale=1.0)


@steps
def test_many_parameters_take_several_launches(cuda, name):
    sizes = [16384 * 2 + 3, *range(80), 0, 5]
    tensors = [start(name, i, (size,), np.float32) for i, size in enumerate(sizes)]
    on_gpu = [list(map(cuda.array, arrays)) for arrays in tensors]
    step(cuda.kernels, name, on_gpu)
    step(cpu, name, tensors)
    for found, arrays in zip(on_gpu, tensors, strict=True):
        for one, other in zip(found, arrays, strict=True):
            assert_near(cuda, one, other, np.dtype(np.float32), 8, scale=1.0)


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_no_parameters(cuda, dtype):
    cuda.kernels.sgd_step([], [], [], 0.1, 0.9)
    empty = cuda.array(np.empty(0, dtype))
    cuda.kernels.sgd_step([empty], [empty], None, 0.1)


def test_errors_say_what_is_wrong(cuda):
    kernels, x = cuda.kernels, cuda.array(np.ones(3))
    y = x.astype(np.float32)
    with pytest.raises(
        ValueError, match=r"sgd_step: velocities must have shape \(3,\), got \(2,\)"
    ):
        kernels.sgd_step([x], [x], [x[:2]], 0.1, 0.9)
    with pytest.raises(ValueError, match="sgd_step: got 1 grads, but 2 velocities"):
        kernels.sgd_step([x], [x], [x, x], 0.1, 0.9)
    with pytest.raises(TypeError, match="same dtype, got grads float32, params float64"):
        kernels.sgd_step([x], [y], None, 0.1)
    with pytest.raises(TypeError, match=r"same dtype, got grads\[0\] float64, grads\[1\] float32"):
        kernels.sgd_step([x, y], [x, y], None, 0.1)
    with pytest.raises(TypeError, match="sgd_step: params must be float32, float64, float16 or"):
        kernels.sgd_step([cuda.array(np.ones(3, np.int64))], [x], None, 0.1)
    with pytest.raises(ValueError, match="adam_step: step counts from 1, got 0"):
        kernels.adam_step([x], [x], [x], [x], 0, 0.1)


@ON_THE_EMULATOR  # which has two GPUs
def test_parameters_must_be_on_the_current_device(cuda):
    with cuda.cupy.cuda.Device(1):
        elsewhere = cuda.array(np.ones(3))
    with pytest.raises(RuntimeError, match="arrays must be on the same device, got one on cuda:1"):
        cuda.kernels.sgd_step([elsewhere], [elsewhere], None, 0.1)
