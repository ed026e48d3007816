"""Every kernel that can be launched computes what the reference does, under each order of threads.

The tests of the families look closer; this one makes sure that none is forgotten.
"""

import numpy as np
import pytest
from cuda_backend import ON_THE_EMULATOR
from cuda_cases import ALL_DTYPES, EPSILON, exact
from kernel_cases import normal
from test_kernels_optim import STEPS, run

import minidl as md
from minidl._kernels import reference

pytestmark = ON_THE_EMULATOR

# Algorithm, x, weight: narrow groups, then small and large tiles.
CONVOLUTIONS = [
    ("direct", (2, 3, 5, 6), (4, 3, 3, 3)),
    ("direct", (2, 3, 5, 6), (9, 3, 3, 3)),
    ("direct", (1, 14, 9, 13), (120, 14, 3, 3)),
    ("im2col", (2, 3, 5, 6), (4, 3, 3, 3)),
    ("winograd", (2, 3, 5, 6), (4, 3, 3, 3)),
    ("tensor_core", (2, 3, 5, 6), (9, 3, 3, 3)),
    ("tensor_core", (2, 3, 5, 6), (70, 3, 3, 3)),
    ("tensor_core", (2, 24, 7, 9), (70, 24, 3, 3)),
]


def convolve(k, array, algorithm, input_shape, weight_shape):
    """A convolution with all of its epilogue, batch norm with its moments, both gradients."""
    md.config.conv_algorithm = algorithm
    x, weight, bias = array(0, *input_shape), array(1, *weight_shape), array(2, weight_shape[0])
    shape = input_shape[0], weight_shape[0], *input_shape[2:]
    window, moments = {"padding": (1, 1, 1, 1)}, []
    epilogue = {"residual": array(3, *shape), "relu": True, "moments": moments}
    y, dy = k.conv2d_forward(x, weight, bias, **window, **epilogue), array(4, *shape)
    dx = k.conv2d_input_grad(dy, weight, input_shape, **window)
    dw = k.conv2d_weight_grad(dy, x, weight_shape, **window)
    found = moments[0] if moments else None
    return y, dx, dw, *k.batch_norm_forward(y, None, None, moments=found)


def normalise(k, array):
    x, dy = array(0, 3, 2, 4, 5), array(1, 3, 2, 4, 5)
    y, mean, var = k.batch_norm_forward(x, None, None, 0.5, relu=True)
    inferred = k.batch_norm_inference(x, None, None, mean, var, 0.5)
    local, scale = k.local_response_norm_forward(x)
    gradients = k.batch_norm_backward(dy, x, None, mean, var, 0.5, y)
    return y, inferred, *gradients, local, k.local_response_norm_backward(dy, x, scale)


def pool(k, array):
    x, results = array(0, 1, 2, 17, 18), []
    for size in (2, 17):  # switches of one byte, and larger ones
        window = (size, size), (1, 2)
        y, switches = k.max_pool2d_forward(x, *window)
        dy = array(1, *y.shape)
        results += [y, k.max_pool2d_backward(dy, switches, x.shape, *window)]
        results += [k.max_pool2d_gather(x, switches, *window)]
        results += [k.avg_pool2d_forward(x, *window)]
        results += [k.avg_pool2d_backward(dy, x.shape, *window)]
    for size in (1, 9):
        results += [k.adaptive_avg_pool2d_forward(x, (size, size))]
        results += [k.adaptive_avg_pool2d_backward(array(2, 1, 2, size, size), x.shape)]
    return results


def others(k, array):
    x, dy = array(0, 7, 12), array(1, 7, 12)
    y, logits = k.relu_forward(x), k.log_softmax_forward(x)
    columns = k.im2col(array(2, 2, 3, 5, 6), (2, 3))
    image = k.col2im(columns, (2, 3, 5, 6), (2, 3))
    return (
        y, k.relu_backward(dy, y), logits, k.log_softmax_backward(dy, logits),
        k.dropout(x, 0.3, 5, 6), columns, image,
    )  # fmt: skip


def optimise(k, array):
    changed = []
    for name, (_, count, _) in STEPS.items():
        param, grad, *states = (array(i, 3, 5) for i in range(2 + count))
        states = [abs(state) for state in states]
        run(k, name, [param], [grad], [states])
        changed += [param, *states]
    return changed


WORKS = [
    *(lambda k, a, c=case: convolve(k, a, *c) for case in CONVOLUTIONS),
    normalise, pool, others, optimise,
]  # fmt: skip


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_every_kernel(cuda, thread_order, monkeypatch, dtype):
    modules, launched = cuda.module("modules"), set()
    launch = modules.KernelFile.launch

    def listen(file, kernel, *args, **options):
        launched.add((file.filename, kernel))
        launch(file, kernel, *args, **options)

    def rounded(seed, *shape):
        return normal(seed, *shape).astype(dtype)

    monkeypatch.setattr(modules.KernelFile, "launch", listen)
    monkeypatch.setattr(cuda.module("direct"), "MANY_TILES", 1)
    monkeypatch.setattr(cuda.module("tensor_core"), "MANY_TILES", 1)
    monkeypatch.setattr(cuda.module("tensor_core"), "LONG_SUM", 250)  # the last of them only
    monkeypatch.setattr(md.config, "allow_tf32", True)
    monkeypatch.setattr(md.config, "conv_algorithm", "auto")  # to be restored
    at_least = {"float32": 2.0**-11, "float64": 1e-13}.get(dtype.name, 0.0)  # TF32; long sums
    tolerance = 8 * max(EPSILON[dtype], at_least)
    for work in WORKS:
        found = work(cuda.kernels, lambda *args: cuda.array(rounded(*args)))
        expected = work(reference, lambda *args: exact(rounded(*args))[0])
        for one, other in zip(found, expected, strict=True):
            bound = tolerance * np.abs(other).max()
            np.testing.assert_allclose(cuda.numpy(one).astype(float), other, rtol=0, atol=bound)
    assert launched == {
        (file.filename, kernel)
        for file in modules.KernelFile.known
        if dtype.name in file.dtypes
        for kernel in file.kernels
    }
