"""Every operation, by itself: first and second derivatives against measured slopes.

A new operation without a case here fails the first test.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from gradients import check_gradients

import minidl as md
from minidl import functional as F
from minidl.functional import (
    activation,
    conv,
    conversion,
    elementwise,
    indexing,
    normalisation,
    pooling,
    reduction,
    shape,
)
from minidl.functional.dropout import Dropout
from minidl.functional.linear import Linear, Matmul
from minidl.nn import hooks

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape)


def away_from_zero(*shape):
    return RNG.uniform(0.3, 1.5, shape) * np.where(RNG.random(shape) < 0.5, -1, 1)


def positive(*shape):
    return RNG.uniform(0.5, 2.0, shape)


def distinct(*shape):
    """Numbers far enough apart for central differences at a maximum."""
    return RNG.permutation(int(np.prod(shape))).reshape(shape) / 7.0


GEOMETRY = conv.Geometry(stride=(2, 1), padding=(1, 0, 0, 1), dilation=(1, 2), groups=2)
IMAGES, FILTERS, MAPS = (2, 4, 4, 5), (2, 2, 2, 2), (2, 2, 2, 4)  # a convolution of this geometry
WINDOW = {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 1)}
POOL = {**WINDOW, "ceil_mode": True}
UNFOLD = {**WINDOW, "padding": (1, 0, 1, 1), "dilation": (1, 1)}
OVERLAPPING = {"kernel_size": (2, 3), "stride": (1, 1), "padding": (0, 0)}  # on planes of 3x4
SWITCHES = md.tensor(RNG.integers(0, 6, (2, 2, 2, 2), np.uint8))
KEPT = md.tensor(RNG.random((2, 3)) < 0.5)
INDICES = md.tensor([[1, 1, 0], [2, 0, 2]])

# What is applied, and to arrays of which values.
CASES = {
    activation.LogSoftmax: (F.log_softmax, normal(2, 3)),
    activation.Relu: (F.relu, away_from_zero(2, 3)),
    activation.LeakyRelu: (lambda x: F.leaky_relu(x, 0.3), away_from_zero(2, 3)),
    activation.Elu: (lambda x: F.elu(x, 0.7), away_from_zero(2, 3)),
    activation.ReluGrad: (
        lambda dy: activation.ReluGrad().apply(dy, KEPT.to(md.float64)),
        normal(2, 3),
    ),
    conv.Conv2d: (lambda x, w, b: conv.Conv2d(GEOMETRY).apply(x, w, b),
                  normal(*IMAGES), normal(*FILTERS), normal(2)),
    conv.Conv2dInputGrad: (lambda dy, w: conv.Conv2dInputGrad(GEOMETRY, IMAGES).apply(dy, w),
                           normal(*MAPS), normal(*FILTERS)),
    conv.Conv2dWeightGrad: (lambda dy, x: conv.Conv2dWeightGrad(GEOMETRY, FILTERS).apply(dy, x),
                            normal(*MAPS), normal(*IMAGES)),
    conv.Im2col: (lambda x: F.im2col(x, **UNFOLD), normal(1, 2, 3, 4)),
    conv.Col2im: (lambda columns: F.col2im(columns, (1, 2, 3, 4), **UNFOLD), normal(1, 12, 6)),
    conversion.Cast: (lambda x: x.to(np.longdouble).to(md.float64), normal(3)),
    conversion.Clone: (lambda x: x.clone(), normal(3)),
    conversion.Move: (lambda x: conversion.Move("cpu").apply(x), normal(3)),
    Dropout: (lambda x: Dropout(0.4, 3, 5).apply(x), normal(3, 4)),
    elementwise.Abs: (md.abs, away_from_zero(2, 3)),
    elementwise.Add: (md.add, normal(2, 3), normal(3)),
    elementwise.Clip: (lambda x: md.clip(x, -0.2, 0.2), away_from_zero(2, 3)),
    elementwise.Cos: (md.cos, normal(2, 3)),
    elementwise.Div: (md.div, normal(2, 1), away_from_zero(2, 3)),
    elementwise.Exp: (md.exp, normal(2, 3)),
    elementwise.Expm1: (md.expm1, normal(2, 3)),
    elementwise.Log: (md.log, positive(2, 3)),
    elementwise.Log1p: (md.log1p, positive(2, 3)),
    elementwise.Maximum: (md.maximum, distinct(2, 3), np.array([0.3, 0.2, 0.5])),
    elementwise.Minimum: (md.minimum, distinct(2, 3), np.array([0.3, 0.2, 0.5])),
    elementwise.Mul: (md.mul, normal(2, 1), normal(3)),
    elementwise.Neg: (md.neg, normal(2, 3)),
    elementwise.Pow: (md.pow, positive(2, 3), normal(3)),
    elementwise.PowNumber: (lambda x: x**3, normal(2, 3)),
    elementwise.Remainder: (lambda a, b: a % b, np.array([5.3, -7.1]), np.array([[2.0], [-3.0]])),
    elementwise.Sigmoid: (md.sigmoid, normal(2, 3)),
    elementwise.Sin: (md.sin, normal(2, 3)),
    elementwise.Sqrt: (md.sqrt, positive(2, 3)),
    elementwise.Stepwise: (md.floor, positive(2, 3)),
    elementwise.Sub: (md.sub, normal(2, 3), normal(2, 1)),
    elementwise.Tanh: (md.tanh, normal(2, 3)),
    elementwise.Where: (lambda a, b: md.where(KEPT, a, b), normal(3), normal(2, 1)),
    hooks._Boundary: (lambda a, b: hooks._Boundary(lambda g: g).apply(a, b), normal(2), normal(3)),
    indexing.AddAlongDim: (lambda x: indexing.AddAlongDim(1, (2, 4)).apply(x, INDICES),
                           normal(2, 3)),
    indexing.GetItem: (lambda x: x[[2, 0, 2], 1:], normal(3, 2)),
    indexing.ScatterAdd: (lambda x: indexing.ScatterAdd([1, 1, 0], (3, 2)).apply(x), normal(3, 2)),
    indexing.TakeAlongDim: (lambda x: md.take_along_dim(x, INDICES, 1), normal(2, 4)),
    Linear: (F.linear, normal(3, 4), normal(2, 4), normal(2)),
    Matmul: (md.matmul, normal(2, 2, 3), normal(2, 3, 2)),
    normalisation.BatchNorm: (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, eps=0.1),
        normal(3, 2, 2, 2), normal(2), normal(2),
    ),
    normalisation.BatchNormInference: (
        lambda x, w, b: F.batch_norm(x, md.ones(2).to(md.float64),
                                     md.full(2, 3.0, md.float64), w, b),
        normal(2, 2, 2, 2), normal(2), normal(2),
    ),
    normalisation.LocalResponseNorm: (
        lambda x: F.local_response_norm(x, 4, alpha=0.9, beta=0.6, k=1.5), normal(1, 5, 2, 2)
    ),
    pooling.AdaptiveAvgPool2d: (lambda x: F.adaptive_avg_pool2d(x, (2, 3)), normal(1, 2, 3, 4)),
    pooling.AdaptiveAvgPool2dGrad: (
        lambda dy: pooling.AdaptiveAvgPool2dGrad((1, 2, 3, 4)).apply(dy), normal(1, 2, 2, 3)
    ),
    pooling.AvgPool2d: (lambda x: F.avg_pool2d(x, **POOL), normal(1, 2, 3, 4)),
    pooling.AvgPool2dGrad: (
        lambda dy: pooling.AvgPool2dGrad((1, 2, 3, 4), **POOL).apply(dy), normal(1, 2, 4, 3)
    ),
    pooling.MaxPool2d: (lambda x: F.max_pool2d(x, **POOL), distinct(1, 2, 3, 4)),
    pooling.MaxPool2dGather: (
        lambda x: pooling.MaxPool2dGather(**OVERLAPPING).apply(x, SWITCHES), normal(2, 2, 3, 4)
    ),
    pooling.MaxPool2dGrad: (
        lambda dy: pooling.MaxPool2dGrad((2, 2, 3, 4), **OVERLAPPING).apply(dy, SWITCHES),
        normal(2, 2, 2, 2),
    ),
    reduction.Cumsum: (lambda x: x.cumsum(1), normal(2, 3)),
    reduction.Logsumexp: (lambda x: x.logsumexp(1), normal(2, 3)),
    reduction.Prod: (lambda x: x.prod(1), np.array([[0.5, -2.0, 1.5], [0.0, 0.7, -1.0]])),
    reduction.Sum: (lambda x: x.sum(1), normal(2, 3)),
    shape.BroadcastTo: (lambda x: x.broadcast_to((4, 2, 3)), normal(2, 1)),
    shape.Concat: (lambda a, b: md.concat([a, b, a], 1), normal(2, 1), normal(2, 2)),
    shape.Flip: (lambda x: x.flip(1), normal(2, 3)),
    shape.Pad: (lambda x: md.pad(x, (1, 0, 0, 2), 0.5), normal(2, 3)),
    shape.Permute: (lambda x: x.permute(2, 0, 1), normal(2, 1, 3)),
    shape.Reshape: (lambda x: x.reshape(3, 2), normal(2, 3)),
    shape.Split: (lambda x: x.split([1, 2], 1), normal(2, 3)),
}  # fmt: skip


def operations(base: type = md.Function) -> Iterator[type]:
    for operation in base.__subclasses__():
        if operation.__module__.startswith("minidl."):
            yield operation
        yield from operations(operation)


def behind(tensors) -> set[type]:
    """The kinds of operations in the graph behind these tensors."""
    found, stack = set(), [tensor.grad_fn for tensor in tensors]
    while stack:
        node = stack.pop()
        found.add(type(node))
        stack += [edge[0] for edge in node.edges if edge and isinstance(edge[0], md.Function)]
    return found


def test_no_operation_is_left_out():
    assert set(CASES) == set(operations())


@pytest.mark.parametrize("operation", CASES, ids=lambda operation: operation.__name__)
def test_both_derivatives(operation):
    function, *arrays = CASES[operation]
    results = function(*[md.tensor(array, requires_grad=True) for array in arrays])
    assert operation in behind(results if isinstance(results, tuple) else [results])
    check_gradients(function, *arrays)
