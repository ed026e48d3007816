"""How each operation is said in ONNX: a table from `Function` classes to what adds the nodes.

A translation takes the graph in the making and a step of the run, adds nodes, and returns the name
of the result (a list of names if there are several).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._kernels.geometry import adaptive_windows
from ..functional import (
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
from ..functional.linear import Linear, Matmul
from ..nn.trace import Step
from .package import OnnxError

Translation = Callable[[Any, Step], Any]
T = TypeVar("T", bound=Translation)

TRANSLATIONS: dict[type, Translation] = {}

SAME = {  # operators that need nothing but their inputs
    elementwise.Add: "Add",
    elementwise.Sub: "Sub",
    elementwise.Mul: "Mul",
    elementwise.Div: "Div",
    elementwise.Pow: "Pow",
    elementwise.Maximum: "Max",
    elementwise.Minimum: "Min",
    elementwise.Where: "Where",
    elementwise.Neg: "Neg",
    elementwise.Exp: "Exp",
    elementwise.Log: "Log",
    elementwise.Sqrt: "Sqrt",
    elementwise.Sin: "Sin",
    elementwise.Cos: "Cos",
    elementwise.Tanh: "Tanh",
    elementwise.Sigmoid: "Sigmoid",
    elementwise.Abs: "Abs",
    activation.Relu: "Relu",
    Matmul: "MatMul",
    conversion.Clone: "Identity",
}
STEPWISE = {"sign": "Sign", "floor": "Floor", "ceil": "Ceil", "round": "Round"}
FIRST = -(2**63)  # as the end of a slice that runs backwards: up to and with the first element


def translates(function: type) -> Callable[[T], T]:
    """Decorator: the translation of a `Function` class."""

    def register(translation: T) -> T:
        TRANSLATIONS[function] = translation
        return translation

    return register


def _same(kind: str) -> Translation:
    return lambda g, step: g.node(kind, *map(g.name, step.inputs))


TRANSLATIONS.update((function, _same(kind)) for function, kind in SAME.items())


# ---- elementwise ----


@translates(elementwise.PowNumber)
def _pow_number(g: Any, step: Step) -> Any:
    (x,) = step.inputs
    exponent: Any = step.operation.exponent  # type: ignore[attr-defined]
    return g.node("Pow", g.name(x), g.constant(exponent, x.dtype))


@translates(elementwise.Clip)
def _clip(g: Any, step: Step) -> Any:
    (x,) = step.inputs
    operation: Any = step.operation
    limits = (
        "" if limit is None else g.constant(limit, x.dtype)
        for limit in (operation.low, operation.high)
    )
    return g.node("Clip", g.name(x), *limits)


@translates(elementwise.Log1p)
def _log1p(g: Any, step: Step) -> Any:
    (x,) = step.inputs
    return g.node("Log", g.node("Add", g.name(x), g.constant(1, x.dtype)))


@translates(elementwise.Expm1)
def _expm1(g: Any, step: Step) -> Any:
    (x,) = step.inputs
    return g.node("Sub", g.node("Exp", g.name(x)), g.constant(1, x.dtype))


@translates(elementwise.Remainder)
def _remainder(g: Any, step: Step) -> Any:
    a, b = map(g.name, step.inputs)
    whole = g.node("Floor", g.node("Div", a, b))
    return g.node("Sub", a, g.node("Mul", whole, b))


@translates(elementwise.Stepwise)
def _stepwise(g: Any, step: Step) -> Any:
    ufunc: Any = step.operation.name
    if ufunc == "floor_divide":
        return g.node("Floor", g.node("Div", *map(g.name, step.inputs)))
    return g.node(STEPWISE[ufunc], g.name(step.inputs[0]))


@translates(conversion.Cast)
def _cast(g: Any, step: Step) -> Any:
    kind = g.onnx.helper.np_dtype_to_tensor_dtype(step.outputs[0].dtype)
    return g.node("Cast", g.name(step.inputs[0]), to=kind)


@translates(activation.LeakyRelu)
def _leaky_relu(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("LeakyRelu", g.name(step.inputs[0]), alpha=operation.negative_slope)


@translates(activation.Elu)
def _elu(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("Elu", g.name(step.inputs[0]), alpha=operation.alpha)


@translates(activation.LogSoftmax)
def _log_softmax(g: Any, step: Step) -> Any:
    return g.node("LogSoftmax", g.name(step.inputs[0]), axis=-1)


# ---- layers ----


@translates(Linear)
def _linear(g: Any, step: Step) -> Any:
    return g.node("Gemm", *map(g.name, step.inputs), transB=1)


@translates(conv.Conv2d)
def _conv2d(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    geometry = operation.geometry
    top, bottom, left, right = geometry.padding
    return g.node(
        "Conv",
        *map(g.name, step.inputs),
        kernel_shape=step.inputs[1].shape[2:],
        strides=geometry.stride,
        pads=(top, left, bottom, right),
        dilations=geometry.dilation,
        group=geometry.groups,
    )


@translates(pooling.MaxPool2d)
def _max_pool2d(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    window = operation.window
    return g.node(
        "MaxPool",
        g.name(step.inputs[0]),
        kernel_shape=window["kernel_size"],
        strides=window["stride"],
        pads=(*window["padding"], *_end_padding(step)),
    )


@translates(pooling.AvgPool2d)
def _avg_pool2d(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    (x,) = step.inputs
    window = operation.window
    name, padding, end = g.name(x), window["padding"], _end_padding(step)
    counted = window["count_include_pad"]
    if counted and end != padding:  # zeros count on the border, but not beyond it
        widths = (0, 0, *padding) * 2
        name = g.node("Pad", name, g.constant(widths), g.constant(0, x.dtype))
        end = tuple(max(e - p, 0) for e, p in zip(end, padding, strict=True))
        padding, counted = (0, 0), False
    return g.node(
        "AveragePool",
        name,
        kernel_shape=window["kernel_size"],
        strides=window["stride"],
        pads=(*padding, *end),
        count_include_pad=int(counted),
    )


def _end_padding(step: Step) -> tuple[int, ...]:
    """The padding below and on the right; with ceil_mode, as much as the last window needs."""
    operation: Any = step.operation
    window = operation.window
    if not window["ceil_mode"]:
        return tuple(window["padding"])
    sizes = zip(
        step.inputs[0].shape[2:],
        step.outputs[0].shape[2:],
        window["kernel_size"],
        window["stride"],
        window["padding"],
        strict=True,
    )
    return tuple(max((p - 1) * stride + k - n - pad, 0) for n, p, k, stride, pad in sizes)


@translates(pooling.AdaptiveAvgPool2d)
def _adaptive_avg_pool2d(g: Any, step: Step) -> Any:
    """Global, or in windows of one size, or else a matrix of weights on either side."""
    (x,), (y,) = step.inputs, step.outputs
    sizes, results = x.shape[2:], y.shape[2:]
    if results == (1, 1):
        return g.node("GlobalAveragePool", g.name(x))
    if all(n % m == 0 for n, m in zip(sizes, results, strict=True)):
        kernel = [n // m for n, m in zip(sizes, results, strict=True)]
        return g.node("AveragePool", g.name(x), kernel_shape=kernel, strides=kernel)
    rows, columns = (_averaging_matrix(n, m, x.dtype) for n, m in zip(sizes, results, strict=True))
    across = g.node("MatMul", g.name(x), g.constant(columns.T, x.dtype))  # (N, C, H, Q)
    return g.node("MatMul", g.constant(rows, x.dtype), across)  # (N, C, P, Q)


def _averaging_matrix(size: int, result: int, dtype: Any) -> np.ndarray:
    """(result, size): row i holds the weights of window i of an adaptive average pooling."""
    matrix = np.zeros((result, size), dtype)
    for row, (start, stop, divisor) in enumerate(zip(*adaptive_windows(size, result), strict=True)):
        matrix[row, start:stop] = 1 / divisor
    return matrix


@translates(normalisation.BatchNormInference)
def _batch_norm_inference(g: Any, step: Step) -> Any:
    x, mean, var, *affine = step.inputs
    operation: Any = step.operation
    channels = x.shape[1]
    if affine:
        scale, shift = map(g.name, affine)
    else:
        scale = g.constant(np.ones(channels), x.dtype)
        shift = g.constant(np.zeros(channels), x.dtype)
    statistics = g.name(mean), g.name(var)
    return g.node("BatchNormalization", g.name(x), scale, shift, *statistics, epsilon=operation.eps)


@translates(normalisation.BatchNorm)
def _batch_norm(g: Any, step: Step) -> Any:
    """By the statistics of the batch, which layers without running ones use in evaluation too."""
    x, *affine = step.inputs
    operation: Any = step.operation
    axes = (0, 2, 3)
    deviation = g.node("Sub", g.name(x), g.node("ReduceMean", g.name(x), axes=axes))
    variance = g.node("ReduceMean", g.node("Mul", deviation, deviation), axes=axes)
    shifted = g.node("Add", variance, g.constant(operation.eps, x.dtype))
    y = g.node("Div", deviation, g.node("Sqrt", shifted))
    for kind, tensor in zip(("Mul", "Add"), affine, strict=False):
        y = g.node(kind, y, g.node("Unsqueeze", g.name(tensor), g.constant((1, 2))))
    return y


@translates(normalisation.LocalResponseNorm)
def _local_response_norm(g: Any, step: Step) -> Any:
    """ONNX divides alpha by the size, and leaves the middle of even sizes to the other side."""
    (x,) = step.inputs
    operation: Any = step.operation
    size, alpha, beta, k = operation.size, operation.alpha, operation.beta, operation.k
    if size % 2:
        alpha = alpha if operation.alpha_over_n else alpha * size
        return g.node("LRN", g.name(x), size=size, alpha=alpha, beta=beta, bias=k)
    alpha = alpha / size if operation.alpha_over_n else alpha
    channels = x.shape[1]
    distance = np.subtract.outer(np.arange(channels), np.arange(channels))  # channel - neighbour
    neighbours = (distance <= size // 2) & (distance >= -((size - 1) // 2))  # (C, C)
    weight = g.constant(alpha * neighbours[:, :, None, None], x.dtype)  # of a 1x1 convolution
    total = g.node("Conv", g.node("Mul", g.name(x), g.name(x)), weight)
    scale = g.node("Add", total, g.constant(k, x.dtype))
    return g.node("Mul", g.name(x), g.node("Pow", scale, g.constant(-beta, x.dtype)))


# ---- reductions ----


@translates(reduction.Sum)
def _sum(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("ReduceSum", g.name(step.inputs[0]), g.constant(operation.axes))


@translates(reduction.Prod)
def _prod(g: Any, step: Step) -> Any:
    return g.node("ReduceProd", g.name(step.inputs[0]), axes=(-1,), keepdims=0)


@translates(reduction.Logsumexp)
def _logsumexp(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("ReduceLogSumExp", g.name(step.inputs[0]), axes=operation.axes)


@translates(reduction.Cumsum)
def _cumsum(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("CumSum", g.name(step.inputs[0]), g.constant(operation.axis))


# ---- shapes ----


@translates(shape.Reshape)
def _reshape(g: Any, step: Step) -> Any:
    """0 keeps the input's size on that axis, -1 stands for what is left."""
    before, after = g.sizes(step.inputs[0]), g.sizes(step.outputs[0])
    kept = [n is None and before[i : i + 1] == [None] for i, n in enumerate(after)]
    shapes = step.inputs[0].shape, step.outputs[0].shape
    target = [
        n if n is not None else 0 if keep and shapes[0][i] == shapes[1][i] else -1
        for i, (n, keep) in enumerate(zip(after, kept, strict=True))
    ]
    if target.count(-1) > 1:
        raise OnnxError(
            f"export: reshape from {shapes[0]} to {shapes[1]} has several sizes that depend on "
            "the number of images"
        )
    return g.node("Reshape", g.name(step.inputs[0]), g.constant(target))


@translates(shape.Permute)
def _permute(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("Transpose", g.name(step.inputs[0]), perm=operation.dims)


@translates(shape.BroadcastTo)
def _broadcast_to(g: Any, step: Step) -> Any:
    """1 leaves a size as it is, which is what a size that follows the images must be."""
    (x,), (y,) = step.inputs, step.outputs
    before = [1] * (y.ndim - x.ndim) + g.sizes(x)
    after = g.sizes(y)
    if any(n is None and m is not None for n, m in zip(after, before, strict=True)):
        raise OnnxError(f"export: broadcast_to from {x.shape} to {y.shape} repeats for every image")
    return g.node("Expand", g.name(x), g.constant([1 if n is None else n for n in after]))


@translates(shape.Flip)
def _flip(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    count = len(operation.axes)
    return _slice(g, g.name(step.inputs[0]), operation.axes, [-1] * count, [FIRST] * count, -1)


@translates(shape.Concat)
def _concat(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("Concat", *map(g.name, step.inputs), axis=operation.axis)


@translates(shape.Split)
def _split(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    sizes = g.constant(operation.sizes)
    count = len(operation.sizes)
    names = g.node("Split", g.name(step.inputs[0]), sizes, outputs=count, axis=operation.axis)
    return [names] if count == 1 else names


@translates(shape.Pad)
def _pad(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    (x,) = step.inputs
    before, after = zip(*operation.widths, strict=True)
    value = g.constant(operation.value, x.dtype)
    return g.node("Pad", g.name(x), g.constant(before + after), value)


@translates(indexing.TakeAlongDim)
def _take_along_dim(g: Any, step: Step) -> Any:
    operation: Any = step.operation
    return g.node("GatherElements", *map(g.name, step.inputs), axis=operation.axis)


@translates(indexing.GetItem)
def _getitem(g: Any, step: Step) -> Any:
    """Slices, then a list of indices along one axis, then axes dropped and added."""
    (x,) = step.inputs
    operation: Any = step.operation
    index = operation.index
    entries = list(index) if isinstance(index, tuple) else [index]
    for place in [i for i, entry in enumerate(entries) if entry is ...]:
        missing = x.ndim - sum(entry is not None for entry in entries) + 1
        entries[place : place + 1] = [slice(None)] * missing
    slices: list[tuple[int, int, int, int]] = []  # axis, start, stop, stride
    lists: list[tuple[int, np.ndarray]] = []
    dropped: list[int] = []
    added: list[int] = []
    axis = 0
    for entry in entries:
        if entry is None:
            added.append(axis - len(dropped) + len(added))
            continue
        if isinstance(entry, slice):
            if entry != slice(None):
                start, stop, stride = entry.indices(x.shape[axis])
                slices.append((axis, start, stop if stop >= 0 else FIRST, stride))
        elif isinstance(entry, int | np.integer):
            slices.append((axis, int(entry), int(entry) + 1 or 2**62, 1))
            dropped.append(axis)
        else:
            lists.append((axis, np.asarray(entry)))
        axis += 1
    several = len(lists) > 1 or (lists and (dropped or added))
    if several or any(array.ndim != 1 or array.dtype.kind not in "iu" for _, array in lists):
        raise OnnxError(f"export: an index like {index!r} has no counterpart")
    name = g.name(x)
    if slices:
        axes, starts, stops, strides = zip(*slices, strict=True)
        name = _slice(g, name, axes, starts, stops, strides)
    for axis, array in lists:
        name = g.node("Gather", name, g.constant(array), axis=axis)
    if dropped:
        name = g.node("Squeeze", name, g.constant(dropped))
    if added:
        name = g.node("Unsqueeze", name, g.constant(added))
    return name


def _slice(g: Any, name: str, axes: Any, starts: Any, stops: Any, strides: Any) -> Any:
    strides = strides if isinstance(strides, tuple) else [strides] * len(axes)
    arguments = (g.constant(numbers) for numbers in (starts, stops, axes, strides))
    return g.node("Slice", name, *arguments)
