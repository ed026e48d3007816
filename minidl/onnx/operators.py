"""ONNX's operators, each made of minidl's differentiable functions.

An operator takes its node and the tensors that the node reads (None for those left out) and returns
a tensor, or a tuple of them.

Source: https://onnx.ai/onnx/operators. Where older operator sets (from 7 on) write an argument as
an attribute that newer ones read as an input, both are understood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..dtypes import is_floating
from ..tensor import Tensor, from_numpy
from .package import OnnxError


@dataclass(frozen=True)
class Node:
    """One node of a graph, free of protobuf: which operator, what it reads, what it makes."""

    kind: str
    inputs: tuple[str, ...]  # "" for those left out
    outputs: tuple[str, ...]
    attributes: dict[str, Any]  # numbers, strings, tuples of them, and arrays
    opset: int

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(attribute, default)

    def refuse(self, reason: str) -> OnnxError:
        """The error for a node that is not supported; to be raised."""
        return OnnxError(f"{self.kind} ({', '.join(self.outputs)}): {reason}")


class Operator(NamedTuple):
    """How to run an operator, and the attributes that are understood."""

    run: Callable[..., Any]
    attributes: frozenset[str]


OPERATORS: dict[str, Operator] = {}

DTYPES = {  # by ONNX's numbers; half precision is computed in float32
    1: np.float32,
    2: np.uint8,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float32,
    11: np.float64,
    16: np.float32,
}


def operator(kind: str, *attributes: str) -> Callable[[Any], Any]:
    """Decorator: this function runs the operator `kind`, which may have these attributes."""

    def register(run: Any) -> Any:
        OPERATORS[kind] = Operator(run, frozenset(attributes))
        return run

    return register


def _same(kind: str, function: Callable[..., Any]) -> None:
    operator(kind)(lambda node, *inputs: function(*inputs))


def _fold(kind: str, function: Callable[..., Any]) -> None:
    """An operator on any number of tensors, by a function of two."""
    operator(kind)(lambda node, *inputs: reduce(function, inputs))


ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Abs": F.abs,
    "Ceil": F.ceil,
    "Cos": F.cos,
    "Exp": F.exp,
    "Floor": F.floor,
    "Identity": lambda x: x,
    "Log": F.log,
    "MatMul": F.matmul,
    "Mul": F.mul,
    "Neg": F.neg,
    "Round": F.round,
    "Sigmoid": F.sigmoid,
    "Sign": F.sign,
    "Sin": F.sin,
    "Sqrt": F.sqrt,
    "Sub": F.sub,
    "Tanh": F.tanh,
    "Where": F.where,
}
for _kind, _function in ELEMENTWISE.items():
    _same(_kind, _function)

for _kind, _function in {"Add": F.add, "Max": F.maximum, "Min": F.minimum, "Sum": F.add}.items():
    _fold(_kind, _function)


@operator("Div")
def _div(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Integers are divided as in C: what is left over of the quotient is cut off."""
    return F.div(a, b) if is_floating(a.dtype) else _truncated(a, b)


def _truncated(a: Tensor, b: Tensor | int) -> Tensor:
    below = a // b
    return below + ((below * b != a) & ((a < 0) ^ (b < 0)))


@operator("Pow")
def _pow(node: Node, x: Tensor, exponent: Tensor) -> Tensor:
    """Of the dtype of x, whatever the exponent's is."""
    if not is_floating(x.dtype) and is_floating(exponent.dtype):
        return F.pow(x.to(np.float64), exponent).to(x.dtype)
    return F.pow(x, exponent).to(x.dtype)


@operator("Relu")
def _relu(node: Node, x: Tensor) -> Tensor:
    return F.relu(x) if is_floating(x.dtype) else F.maximum(x, 0)


def ints(tensor: Tensor) -> tuple[int, ...]:
    """The numbers of an integer tensor that says how to do something."""
    return tuple(int(n) for n in tensor.data.reshape(-1))


def _argument(node: Node, attribute: str, tensor: Tensor | None) -> tuple[int, ...] | None:
    """Integers that are an attribute in older operator sets and an input in newer ones."""
    return node.get(attribute) if tensor is None else ints(tensor)


# ---- windows ----


@operator("Conv", "auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
def _conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    _check_images(node, x)
    stride, dilation = _pair(node, "strides"), _pair(node, "dilations")
    top, left, bottom, right = _border(node, x, weight.shape[2:], stride, dilation)
    return F.conv2d(
        x, weight, bias, stride, (top, bottom, left, right), dilation, node.get("group", 1)
    )


@operator(
    "MaxPool",
    "auto_pad",
    "ceil_mode",
    "dilations",
    "kernel_shape",
    "pads",
    "storage_order",
    "strides",
)
def _max_pool(node: Node, x: Tensor) -> Tensor:
    window = _Window(node, x)
    padded = window.pad(x, window.border, -math.inf)
    if window.dilation == (1, 1):
        return F.max_pool2d(padded, window.kernel, window.stride)
    return reduce(F.maximum, window.shifts(padded))


@operator(
    "AveragePool",
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "kernel_shape",
    "pads",
    "strides",
)
def _average_pool(node: Node, x: Tensor) -> Tensor:
    """The mean over the whole window, divided by the fraction of it that counts."""
    window = _Window(node, x)
    y = window.mean(window.pad(x, window.border, 0.0))
    counted = np.ones((1, 1, *x.shape[2:]), x.dtype)
    inside = from_numpy(counted)
    if node.get("count_include_pad", 0):
        inside = window.pad(inside, window.explicit, 1.0)
        beyond = tuple(a - b for a, b in zip(window.border, window.explicit, strict=True))
        inside = window.pad(inside, beyond, 0.0)
    else:
        inside = window.pad(inside, window.border, 0.0)
    share = window.mean(inside)
    return y if bool((share.data == 1).all()) else y / share


class _Window:
    """The window of a pooling.

    Attributes:
        kernel, stride, dilation: pairs (height, width).
        explicit: the padding (top, left, bottom, right) that the node asks for.
        border: the same with what `ceil_mode` needs for its last, incomplete windows.
        size: of the result.
    """

    def __init__(self, node: Node, x: Tensor) -> None:
        _check_images(node, x)
        self.kernel = _pair(node, "kernel_shape")
        self.stride, self.dilation = _pair(node, "strides"), _pair(node, "dilations")
        self.explicit = _border(node, x, self.kernel, self.stride, self.dilation)
        after, size = [], []
        for axis in (0, 1):
            stride, padded = self.stride[axis], x.shape[2 + axis] + self.explicit[axis]
            reach = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = padded + self.explicit[2 + axis] - reach
            count = room // stride + 1
            if node.get("ceil_mode", 0):
                count = -(-room // stride) + 1
                if (count - 1) * stride >= padded:  # it would start in the padding
                    count -= 1
            if count < 1:
                raise ValueError(f"{node.kind}: a window of {reach} does not fit {x.shape}")
            missing = (count - 1) * stride + reach - padded
            after.append(max(missing, self.explicit[2 + axis]))
            size.append(count)
        self.border = (*self.explicit[:2], *after)
        self.size = tuple(size)

    def pad(self, x: Tensor, border: tuple[int, ...], value: float) -> Tensor:
        """x with that border (top, left, bottom, right)."""
        top, left, bottom, right = border
        return F.pad(x, (left, right, top, bottom), value) if any(border) else x

    def shifts(self, padded: Tensor) -> list[Tensor]:
        """For each place in the window, what all windows see there."""
        ends = [(n - 1) * stride + 1 for n, stride in zip(self.size, self.stride, strict=True)]
        return [
            padded[:, :, i : i + ends[0] : self.stride[0], j : j + ends[1] : self.stride[1]]
            for i in range(0, self.kernel[0] * self.dilation[0], self.dilation[0])
            for j in range(0, self.kernel[1] * self.dilation[1], self.dilation[1])
        ]

    def mean(self, padded: Tensor) -> Tensor:
        """The mean of every window."""
        if self.dilation == (1, 1):
            return F.avg_pool2d(padded, self.kernel, self.stride)
        return reduce(F.add, self.shifts(padded)) / math.prod(self.kernel)


def _check_images(node: Node, x: Tensor) -> None:
    if x.ndim != 4:
        raise node.refuse(f"only images (N, C, H, W) are supported, got shape {x.shape}")


def _pair(node: Node, attribute: str) -> tuple[int, int]:
    height, width = node.get(attribute, (1, 1))
    return height, width


def _border(
    node: Node, x: Tensor, kernel: Any, stride: Any, dilation: Any
) -> tuple[int, int, int, int]:
    """The padding (top, left, bottom, right), from `pads` or `auto_pad`."""
    auto = node.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
        return top, left, bottom, right
    before, after = [], []
    for n, k, step, apart in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        total = 0
        if auto != "VALID":  # SAME: as many windows as strides begin in the image
            total = max((-(-n // step) - 1) * step + apart * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(large if auto == "SAME_LOWER" else small)
        after.append(small if auto == "SAME_LOWER" else large)
    return before[0], before[1], after[0], after[1]


@operator("GlobalAveragePool")
def _global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.max(tuple(range(2, x.ndim)), keepdim=True)


# ---- layers ----


@operator("Gemm", "alpha", "beta", "transA", "transB")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.T if node.get("transA", 0) else a
    if node.get("transB", 0) and alpha == beta == 1 and c is not None and c.shape == b.shape[:1]:
        return F.linear(a, b, c)
    y = F.matmul(a, b.T if node.get("transB", 0) else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


@operator("BatchNormalization", "epsilon", "momentum", "spatial", "training_mode")
def _batch_normalization(
    node: Node, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    if node.get("training_mode", 0) or not node.get("spatial", 1):
        raise node.refuse("only one mean and variance for each channel, given ones, is supported")
    images = x.reshape(*x.shape[:2], -1, 1)  # (N, C, all other axes, 1)
    return F.batch_norm(images, mean, var, scale, shift, eps=node.get("epsilon", 1e-5)).reshape(
        x.shape
    )


@operator("LRN", "alpha", "beta", "bias", "size")
def _lrn(node: Node, x: Tensor) -> Tensor:
    """An even window has its middle on the other side than in `local_response_norm`."""
    size = node.get("size")
    x = x if size % 2 else x.flip(1)
    alpha, beta, k = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    y = F.local_response_norm(x, size, alpha, beta, k, alpha_over_n=True)
    return y if size % 2 else y.flip(1)


@operator("Dropout", "ratio", "seed")
def _dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None
) -> Tensor:
    p = node.get("ratio", 0.5) if ratio is None else ratio.item()
    return F.dropout(x, p, training=training_mode is not None and bool(training_mode.item()))


# ---- activations ----


@operator("Clip", "max", "min")
def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = node.get("min") if low is None else low.item()
    most = node.get("max") if high is None else high.item()
    return x if least is None and most is None else x.clip(least, most)


@operator("LeakyRelu", "alpha")
def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("Elu", "alpha")
def _elu(node: Node, x: Tensor) -> Tensor:
    return F.elu(x, node.get("alpha", 1.0))


@operator("Softmax", "axis")
def _softmax(node: Node, x: Tensor) -> Tensor:
    return _along_axis(node, x, F.softmax)


@operator("LogSoftmax", "axis")
def _log_softmax(node: Node, x: Tensor) -> Tensor:
    return _along_axis(node, x, F.log_softmax)


def _along_axis(node: Node, x: Tensor, function: Callable[..., Tensor]) -> Tensor:
    """Before operator set 13, all axes from `axis` on count as one."""
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    return function(_matrix(x, node.get("axis", 1)), -1).reshape(x.shape)


def _matrix(x: Tensor, axis: int) -> Tensor:
    """The axes before `axis` made into one, and those from it on into another."""
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


# ---- constants ----


@operator("Constant", "value", "value_float", "value_floats", "value_int", "value_ints")
def _constant(node: Node) -> Tensor:
    ((name, value),) = node.attributes.items()
    if name == "value":
        return from_numpy(value)
    return from_numpy(np.asarray(value, np.float32 if "float" in name else np.int64))


@operator("ConstantOfShape", "value")
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value", np.zeros(1, np.float32))
    return from_numpy(np.full(ints(shape), value.reshape(())))


@operator("Shape", "start", "end")
def _shape(node: Node, x: Tensor) -> Tensor:
    return from_numpy(np.asarray(x.shape[node.get("start", 0) : node.get("end")], np.int64))


@operator("Cast", "to", "saturate")
def _cast(node: Node, x: Tensor) -> Tensor:
    if node.get("to") not in DTYPES:
        raise node.refuse(f"type {node.get('to')} is not supported")
    return x.to(DTYPES[node.get("to")])


# ---- shapes ----


@operator("Flatten", "axis")
def _flatten(node: Node, x: Tensor) -> Tensor:
    return _matrix(x, node.get("axis", 1))


@operator("Reshape", "allowzero")
def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = ints(shape)
    if not node.get("allowzero", 0):
        sizes = tuple(n if n else x.shape[i] for i, n in enumerate(sizes))
    return x.reshape(sizes)


@operator("Transpose", "perm")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", tuple(reversed(range(x.ndim)))))


@operator("Unsqueeze", "axes")
def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    places = _argument(node, "axes", axes) or ()
    ndim = x.ndim + len(places)
    for axis in sorted(place % ndim for place in places):
        x = x.unsqueeze(axis)
    return x


@operator("Squeeze", "axes")
def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    return x.squeeze(_argument(node, "axes", axes))


@operator("Expand")
def _expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.broadcast_to(np.broadcast_shapes(x.shape, ints(shape)))


@operator("Pad", "mode", "pads", "value")
def _pad(
    node: Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    if node.get("mode", "constant") != "constant":
        raise node.refuse(f"mode {node.get('mode')!r} is not supported, only 'constant'")
    widths = _argument(node, "pads", pads) or ()
    places = range(x.ndim) if axes is None else ints(axes)
    border = [0] * (2 * x.ndim)  # (before, after) from the last axis backwards
    for i, axis in enumerate(places):
        place = 2 * (x.ndim - 1 - axis % x.ndim)
        border[place : place + 2] = widths[i], widths[i + len(places)]
    number = node.get("value", 0.0) if value is None else value.item()
    cut = [max(-width, 0) for width in border]  # what is negative cuts off
    if any(cut):
        pairs = [(cut[i], cut[i + 1]) for i in range(0, len(cut), 2)][::-1]
        x = x[tuple(slice(a, n - b) for n, (a, b) in zip(x.shape, pairs, strict=True))]
    return F.pad(x, [max(width, 0) for width in border], number)


@operator("Concat", "axis")
def _concat(node: Node, *inputs: Tensor) -> Tensor:
    return F.concat(inputs, node.get("axis"))


@operator("Split", "axis", "num_outputs", "split")
def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    given = _argument(node, "split", sizes)
    if given is None:
        return x.split(-(-x.shape[axis] // len(node.outputs)), axis)
    return x.split(given, axis)


@operator("Slice", "axes", "ends", "starts")
def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = _argument(node, "starts", starts) or (), _argument(node, "ends", ends) or ()
    places = _argument(node, "axes", axes) or tuple(range(len(first)))
    strides = (1,) * len(first) if steps is None else ints(steps)
    index = [slice(None)] * x.ndim
    for axis, start, stop, stride in zip(places, first, last, strides, strict=True):
        index[axis] = slice(start, stop, stride)
    return x[tuple(index)]


@operator("Gather", "axis")
def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    place = indices.data if indices.ndim else int(indices.item())
    return x[(*(slice(None),) * (node.get("axis", 0) % x.ndim), place)]


@operator("GatherElements", "axis")
def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    return x.take_along_dim(indices, node.get("axis", 0))


# ---- reductions ----


def _reduction(kind: str, function: Callable[..., Tensor]) -> None:
    @operator(kind, "axes", "keepdims", "noop_with_empty_axes")
    def run(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        places = _argument(node, "axes", axes) or None
        if places is None and node.get("noop_with_empty_axes", 0):
            return x
        return function(x, places, keepdim=bool(node.get("keepdims", 1))).to(x.dtype)


def _mean(x: Tensor, places: tuple[int, ...] | None, keepdim: bool) -> Tensor:
    if is_floating(x.dtype):
        return F.mean(x, places, keepdim)
    axes = range(x.ndim) if places is None else places
    return _truncated(F.sum(x, places, keepdim), math.prod(x.shape[axis] for axis in axes))


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceLogSumExp": F.logsumexp,
    "ReduceMax": F.max,
    "ReduceMean": _mean,
    "ReduceMin": F.min,
    "ReduceProd": F.prod,
    "ReduceSum": F.sum,
}
for _kind, _function in REDUCTIONS.items():
    _reduction(_kind, _function)


@operator("CumSum")
def _cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    return F.cumsum(x, int(axis.item())).to(x.dtype)
