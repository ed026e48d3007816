"""The layers' functions beside PyTorch's, over drawn shapes, options, dtypes and memory layouts.

PyTorch computes in float64 from the same numbers; the largest error, relative to the largest value,
may be 1e-5 in float32 and 1e-11 in float64.
"""

import numpy as np
import pytest
from conftest import oracle
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import assert_close, dtypes, layouts, normal, seeds

import minidl as md
from minidl import functional as F
from minidl._kernels.geometry import effective_window


def pairs(smallest, largest):
    return st.tuples(st.integers(smallest, largest), st.integers(smallest, largest))


def compare(ours, theirs, *arrays, layout, scale=1e-30):
    """Values and gradients, for a random upstream gradient, of two functions of these arrays.

    `scale`: see `assert_close`, for the gradients.
    """
    torch = oracle()
    inputs = [md.from_numpy(layout(array)).requires_grad_() for array in arrays]
    expected = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    y, wanted = ours(*inputs), theirs(torch.nn.functional, *expected)
    upstream = np.asarray(normal(0, *y.shape, dtype=y.dtype.type))
    y.backward(md.from_numpy(layout(upstream) if y.ndim else upstream))
    wanted.backward(torch.tensor(upstream, dtype=torch.float64))
    dtype = arrays[0].dtype
    assert_close(y.data, wanted.detach().numpy().astype(dtype))
    for tensor, other in zip(inputs, expected, strict=True):
        assert_close(tensor.grad.data, other.grad.numpy().astype(dtype), scale=scale)


@st.composite
def convolutions(draw):
    """(shape of the input, shape of the weight, options) of a convolution whose window fits."""
    kernel = draw(pairs(1, 4))
    options = {"dilation": draw(pairs(1, 3)), "groups": draw(st.integers(1, 3))}
    window = effective_window(kernel, options["dilation"])
    if draw(st.booleans()):
        options |= {"padding": "same"}
        smallest = (1, 1)
    else:
        options |= {"stride": draw(pairs(1, 3)), "padding": draw(pairs(0, 3))}
        smallest = [max(1, w - 2 * p) for w, p in zip(window, options["padding"], strict=True)]
    height, width = (draw(st.integers(least, 12)) for least in smallest)
    n, c, k = draw(st.integers(0, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    groups = options["groups"]
    return (n, c * groups, height, width), (k * groups, c, *kernel), options


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # PyTorch tells that it copies
@given(convolutions(), st.booleans(), dtypes, layouts, seeds)
def test_convolution(convolution, with_bias, dtype, layout, seed):
    input_shape, weight_shape, options = convolution
    shapes = [input_shape, weight_shape] + ([weight_shape[:1]] if with_bias else [])
    compare(
        lambda *tensors: F.conv2d(*tensors, **options),
        lambda functional, *tensors: functional.conv2d(*tensors, **options),
        *(normal(seed, *shape, dtype=dtype) for shape in shapes),
        layout=layout,
    )


@st.composite
def poolings(draw):
    """(shape of the input, options) of a pooling that has at least one output."""
    kernel, stride = draw(pairs(1, 4)), draw(pairs(1, 4))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    smallest = [max(1, size - 2 * before) for size, before in zip(kernel, padding, strict=True)]
    height, width = (draw(st.integers(least, 9)) for least in smallest)
    options = {"kernel_size": kernel, "stride": stride, "padding": padding}
    options["ceil_mode"] = draw(st.booleans())
    return (draw(st.integers(0, 3)), draw(st.integers(1, 3)), height, width), options


@given(poolings(), dtypes, layouts, seeds)
def test_max_pooling(pooling, dtype, layout, seed):
    shape, options = pooling
    compare(
        lambda x: F.max_pool2d(x, **options),
        lambda functional, x: functional.max_pool2d(x, **options),
        normal(seed, *shape, dtype=dtype),
        layout=layout,
    )


@given(poolings(), st.booleans(), dtypes, layouts, seeds)
def test_average_pooling(pooling, count_include_pad, dtype, layout, seed):
    shape, options = pooling
    options["count_include_pad"] = count_include_pad
    compare(
        lambda x: F.avg_pool2d(x, **options),
        lambda functional, x: functional.avg_pool2d(x, **options),
        normal(seed, *shape, dtype=dtype),
        layout=layout,
    )


images = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


@given(images, pairs(1, 11), dtypes, layouts, seeds)
def test_adaptive_average_pooling(shape, output_size, dtype, layout, seed):
    compare(
        lambda x: F.adaptive_avg_pool2d(x, output_size),
        lambda functional, x: functional.adaptive_avg_pool2d(x, output_size),
        normal(seed, *shape, dtype=dtype),
        layout=layout,
    )


@given(images, st.booleans(), st.booleans(), dtypes, layouts, seeds)
def test_batch_normalisation(shape, training, affine, dtype, layout, seed):
    torch = oracle()
    n, c, h, w = shape
    if training and n * h * w < 2:  # no variance
        shape = (n, c, h + 1, w) if n else (2, c, h, w)
    mean, var = normal(seed, c, 1)[:, 0], 1 + normal(seed, c, 2)[:, 0] ** 2
    own = [md.tensor(mean, dtype=dtype), md.tensor(var, dtype=dtype)]
    other = [torch.tensor(mean), torch.tensor(var)]
    options = {"training": training, "momentum": 0.3, "eps": 0.1}
    compare(
        lambda x, *tensors: F.batch_norm(x, *own, *tensors, **options),
        lambda functional, x, *tensors: functional.batch_norm(x, *other, *tensors, **options),
        normal(seed, *shape, dtype=dtype),
        *(1 + normal(seed + i, c, dtype=dtype) for i in range(2 * affine)),
        layout=layout,
        scale=1.0,  # of two values the gradients nearly cancel
    )
    for running, expected in zip(own, other, strict=True):
        assert_close(running.data, expected.numpy().astype(dtype))


@given(images, st.integers(1, 6), dtypes, layouts, seeds)
def test_local_response_normalisation(shape, size, dtype, layout, seed):
    options = {"alpha": 0.9, "beta": 0.6, "k": 1.5}
    compare(
        lambda x: F.local_response_norm(x, size, **options, alpha_over_n=True),
        lambda functional, x: functional.local_response_norm(x, size, **options),
        normal(seed, *shape, dtype=dtype),
        layout=layout,
    )


@given(st.lists(st.integers(0, 4), max_size=2), st.integers(1, 9), st.integers(1, 5), dtypes,
       layouts, seeds)  # fmt: skip
def test_linear(leading, n_in, n_out, dtype, layout, seed):
    compare(
        F.linear,
        lambda functional, *tensors: functional.linear(*tensors),
        normal(seed, *leading, n_in, dtype=dtype),
        normal(seed, n_out, n_in, dtype=dtype),
        normal(seed, n_out, dtype=dtype),
        layout=layout,
    )


@given(st.sampled_from(["relu", "leaky_relu", "elu", "sigmoid", "tanh"]), images, dtypes, layouts,
       seeds)  # fmt: skip
def test_activations(name, shape, dtype, layout, seed):
    compare(
        getattr(F, name),
        lambda functional, x: getattr(functional, name)(x),
        3 * normal(seed, *shape, dtype=dtype),
        layout=layout,
    )


@given(st.sampled_from(["softmax", "log_softmax"]), images, st.integers(-4, 3), dtypes, layouts,
       seeds)  # fmt: skip
def test_softmax(name, shape, dim, dtype, layout, seed):
    compare(
        lambda x: getattr(F, name)(x, dim),
        lambda functional, x: getattr(functional, name)(x, dim),
        3 * normal(seed, *shape, dtype=dtype),
        layout=layout,
        scale=1.0,  # a gradient is taken from its mean: little is left where one value wins
    )


@given(st.integers(0, 5), st.integers(1, 6), st.booleans(), st.sampled_from([0.0, 0.1, 1.0]),
       st.sampled_from(["mean", "sum", "none"]), st.data(), dtypes, layouts, seeds)  # fmt: skip
def test_cross_entropy(n, classes, weighted, smoothing, reduction, data, dtype, layout, seed):
    torch = oracle()
    labels = st.integers(-1, classes - 1)  # -1 is ignored; all of them may be
    target = np.array(data.draw(st.lists(labels, min_size=n, max_size=n)), np.int64)
    weight = 1 + normal(seed, classes, dtype=dtype) ** 2 if weighted else None
    options = {"ignore_index": -1, "label_smoothing": smoothing, "reduction": reduction}
    compare(
        lambda x: F.cross_entropy(
            x, md.tensor(target), None if weight is None else md.tensor(weight), **options
        ),
        lambda functional, x: functional.cross_entropy(
            x,
            torch.tensor(target),
            None if weight is None else torch.tensor(weight, dtype=torch.float64),
            **options,
        ),
        3 * normal(seed, n, classes, dtype=dtype),
        layout=layout,
        scale=1.0,  # as in test_softmax
    )
