"""Arrays without elements behave as NumPy's in shape and dtype, and take no memory."""

import inspect
import tracemalloc

import numpy as np
import pytest
from operations import OPERATIONS, linear_map

import minidl as md
import minidl.functional as F
from minidl._kernels import array_namespace, cpu, kernels_for, reference, shapes
from minidl._kernels.geometry import ReceptiveField
from minidl._kernels.shapes import ShapeArray, work


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_operations_give_the_shape_and_dtype_that_numbers_give(operation):
    x = np.random.default_rng(0).standard_normal((2, 4, 9, 8)).astype(np.float32)
    with md.no_grad():
        expected = operation(md.Tensor(x))
        found = operation(md.Tensor(ShapeArray(x.shape)))
    assert isinstance(found.data, ShapeArray)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)


def test_float64_stays_float64():
    x = md.Tensor(ShapeArray((2, 4, 9, 8), np.float64))
    assert (x.relu() * 2 + 1).mean((2, 3)).softmax(1).dtype == md.float64


def test_a_feature_map_takes_no_memory():
    x = md.Tensor(ShapeArray((64, 64, 224, 224)))  # 822 MB of float32
    tracemalloc.start()
    with md.no_grad():
        for operation in (
            lambda x: F.conv2d(x, md.ones(64, 64, 3, 3), md.ones(64), padding=1),
            lambda x: F.max_pool2d(x, 2),
            lambda x: x.relu() + x,
            lambda x: md.concat([x, x], dim=1)[:, :64],
            lambda x: md.pad(x, (1, 1)),
            lambda x: x.reshape(64, -1).softmax(1),
            lambda x: x.mean((2, 3)),
        ):
            operation(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000


def test_nobody_can_write_into_it():
    x = ShapeArray((2, 3))
    x[0] = 5
    x += 1
    assert not x.any()
    assert not x.flags.writeable


def test_the_kernels_and_the_namespace_are_chosen_by_the_array():
    x = ShapeArray((1,))
    assert kernels_for(x) is array_namespace(x) is shapes
    assert kernels_for(np.zeros(1)) is cpu
    assert array_namespace(np.zeros(1)) is np


@pytest.mark.parametrize("name", sorted(set(shapes.__all__) & set(reference.__all__)))
def test_kernels_have_the_parameters_of_the_reference(name):
    def parameters(function):
        return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(getattr(shapes, name)) == parameters(getattr(reference, name))


@pytest.mark.parametrize(
    ("operation", "macs"),
    [
        (OPERATIONS["conv2d"], 2 * 6 * 5 * 8 * 2 * 9),
        (linear_map, 2 * 5 * 4 * 9 * 8),
        (OPERATIONS["matmul"], 2 * 72 * 72 * 4),
        (lambda x: x @ md.ones(8, 3), 2 * 4 * 9 * 8 * 3),
        (OPERATIONS["softmax"], 0),
    ],
)
def test_products_are_counted(operation, macs):
    before = work.macs
    with md.no_grad():
        operation(md.Tensor(ShapeArray((2, 4, 9, 8))))
    assert work.macs - before == macs


def field_of(network, shape):
    with md.no_grad():
        return network(md.Tensor(ShapeArray(shape))).data.field


def seen(network, shape, position):
    """(first, last) row and column of the image that reach one position of the output."""
    x = md.ones(shape, requires_grad=True)
    network(x)[0, :, position[0], position[1]].sum().backward()
    rows, columns = np.nonzero(x.grad.data[0].sum(0))
    return rows.min(), rows.max(), columns.min(), columns.max()


def kernel(*size, inputs=1):
    return md.ones(1, inputs, *size)


def chain(x):
    x = F.conv2d(x, kernel(5, 3), stride=2)
    x = F.avg_pool2d(x, 3, stride=(2, 1))
    return F.conv2d(x, kernel(3, 1), dilation=(2, 1))


def branches(x):
    x = F.conv2d(x, kernel(3, 3), stride=2)
    wide = F.conv2d(F.conv2d(x, kernel(3, 3), padding=1), kernel(3, 5), padding=(1, 2), stride=2)
    small = F.conv2d(x[:, :, ::2, ::2], kernel(1, 1))
    return F.conv2d(md.concat([wide + small, small], dim=1), kernel(1, 3, inputs=2))


def padded_in_front(x):
    x = md.pad(F.conv2d(x, kernel(3, 3), stride=2), (0, 0, 0, 0, 1, 0))
    return F.conv2d(x, kernel(2, 2, inputs=2))


@pytest.mark.parametrize("network", [chain, branches, padded_in_front])
def test_receptive_fields_are_what_gradients_reach(network):
    shape = (1, 1, 61, 63)
    field = field_of(network, shape)
    top, bottom, left, right = seen(network, shape, (4, 5))
    assert (bottom - top + 1, right - left + 1) == field.size
    below, _, beside, _ = seen(network, shape, (5, 6))
    assert (below - top, beside - left) == field.jump


@pytest.mark.parametrize(
    "head",
    [
        lambda x: F.linear(x.flatten(1), md.ones(5, 25)),
        lambda x: F.linear(x.reshape(1, 25), md.ones(5, 25)),
        lambda x: x.mean((2, 3)),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), md.ones(5, 1)),
        lambda x: F.avg_pool2d(x, 5),
    ],
)
def test_heads_see_all_that_the_last_feature_map_sees(head):
    def network(x):
        return head(F.conv2d(x, md.ones(1, 1, 3, 3), stride=2))

    assert field_of(network, (1, 1, 11, 11)).size == (3 + 4 * 2, 3 + 4 * 2)


def test_gates_that_see_the_whole_image_do_not_count():
    def gated(x):
        x = F.conv2d(x, kernel(3, 3), stride=2)
        return x * F.adaptive_avg_pool2d(x, 1).sigmoid() + x.mean((2, 3), keepdim=True)

    assert field_of(gated, (1, 1, 11, 11)) == ((3, 3), (2, 2))


def test_a_residual_brings_its_field_along():
    x, channels = ShapeArray((1, 4, 8, 8)), np.ones(4, np.float32)
    shortcut = shapes.max_pool2d_forward(x, (3, 3), (1, 1), (1, 1))[0]
    y, mean, var = shapes.batch_norm_forward(x, channels, channels, residual=shortcut, relu=True)
    assert y.field == ReceptiveField((3, 3), (1, 1))
    assert shapes.batch_norm_inference(x, None, None, mean, var, residual=shortcut).field == y.field


def test_switches_have_a_shape_where_there_are_any():
    x, window = np.zeros((1, 2, 4, 6), np.float32), ((2, 3), (2, 3))
    for with_switches in (True, False):
        of_numbers = cpu.max_pool2d_forward(x, *window, with_switches=with_switches)[1]
        found = shapes.max_pool2d_forward(
            ShapeArray(x.shape), *window, with_switches=with_switches
        )[1]
        for switches in (of_numbers, found):
            facts = None if switches is None else (switches.shape, switches.dtype)
            assert facts == (((1, 2, 2, 2), np.uint8) if with_switches else None)


def test_a_field_begins_with_a_pixel():
    assert ShapeArray((1, 3, 8, 8)).field == ReceptiveField((1, 1), (1, 1))
