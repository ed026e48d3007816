"""Activation functions, and the softmax that turns scores into probabilities."""

from __future__ import annotations

from typing import Any

from .._kernels import array_namespace, kernels_for
from ..autograd import Function, is_grad_enabled
from ..fusion import DueGradient
from ..precision import raised
from ..tensor import Tensor, tensor_method
from .elementwise import exp, floating, minimum, sigmoid, tanh, where
from .reduction import sum
from .shape import one_axis, reshape, transpose

__all__ = [
    "elu",
    "leaky_relu",
    "log_softmax",
    "relu",
    "scaled_tanh",
    "sigmoid",
    "softmax",
    "tanh",
]


class Relu(Function):
    """Keeps only its output: where that is positive, the input was."""

    epilogue = "relu"
    overwrites_gradient = True
    left_to_first = False  # whether the operation before rectifies the gradient

    def forward(self, x: Any) -> Any:
        y = kernels_for(x).relu_forward(x)
        self.save(y)
        return y

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data > 0

    def adopt(self, y: Any, first: Function) -> None:
        self.save(y)
        self.left_to_first = first.rectifies_gradient

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        if self.left_to_first and not is_grad_enabled():
            return dy
        if self.may_overwrite:
            return Tensor.from_operation(rectified_gradient(dy, y, True), None, 0)
        return ReluGrad().apply(dy, y)


def rectified_gradient(
    dy: Tensor, y: Tensor, may_overwrite: bool, sums: list[Any] | None = None
) -> Any:
    """dy where y > 0, else 0, as an array; in the place of dy's if that may be overwritten.

    `sums` may receive those over images and pixels. The gradient of a max pooling is rectified
    before it is spread out, see `DueGradient`.
    """
    kernels, due = kernels_for(y.data), dy.stored
    if may_overwrite and isinstance(due, DueGradient):
        kernels.relu_backward(due.dy, due.y, due.dy, sums)
        due.y = None  # free it before dx takes its memory
        return due.spread(due.dy)
    out = dy.data if may_overwrite else None
    return kernels.relu_backward(dy.data, y.data, out, sums)


class ReluGrad(Function):
    """dy where y > 0: linear in dy, and constant in y but for jumps."""

    def forward(self, dy: Any, y: Any) -> Any:
        self.save(y)
        return kernels_for(dy).relu_backward(dy, y)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[1].data > 0

    def backward(self, ddx: Tensor) -> Any:
        (y,) = self.saved
        return ReluGrad().apply(ddx, y), None


class LeakyRelu(Function):
    def __init__(self, negative_slope: float) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Any:
        self.save(x)
        return array_namespace(x).where(x > 0, x, x * self.negative_slope)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data > 0

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return where(x > 0, dy, dy * self.negative_slope)


class Elu(Function):
    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        xp = array_namespace(x)
        self.save(x)
        return xp.where(x > 0, x, xp.expm1(xp.minimum(x, 0)) * self.alpha)

    def branch(self, inputs: Any, outputs: Any) -> Any:
        return inputs[0].data > 0

    def backward(self, dy: Tensor) -> Tensor:
        (x,) = self.saved
        return where(x > 0, dy, dy * exp(minimum(x, 0.0)) * self.alpha)


class LogSoftmax(Function):
    """Along the last axis of (N, classes)."""

    def forward(self, x: Any) -> Any:
        y = kernels_for(x).log_softmax_forward(x)
        self.save(y)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (y,) = self.saved
        if is_grad_enabled():
            return dy - exp(y) * sum(dy, -1, keepdim=True)
        return Tensor.from_operation(
            kernels_for(dy.data).log_softmax_backward(dy.data, y.data), None, 0
        )


@tensor_method("relu")
def relu(x: Tensor) -> Tensor:
    """max(x, 0); the derivative at 0 is 0, and NaN stays NaN.

    Source: Nair, Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.

    >>> import minidl as md
    >>> md.functional.relu(md.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    return Relu().apply(floating("relu", x))


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere.

    Source: Maas, Hannun, Ng, "Rectifier nonlinearities improve neural network acoustic models",
    2013.

    >>> import minidl as md
    >>> md.functional.leaky_relu(md.tensor([-2.0, 2.0]), 0.5)
    tensor([-1.,  2.])
    """
    return LeakyRelu(float(negative_slope)).apply(floating("leaky_relu", x))


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, alpha * (exp(x) - 1) elsewhere.

    Source: Clevert, Unterthiner, Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", 2016.

    >>> import minidl as md
    >>> md.functional.elu(md.tensor([-1000.0, 2.0]))
    tensor([-1.,  2.])
    """
    return Elu(float(alpha)).apply(floating("elu", x))


def scaled_tanh(x: Tensor) -> Tensor:
    """1.7159 tanh(2 x / 3), which maps 1 to 1 and -1 to -1.

    Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.4.

    >>> import minidl as md
    >>> round(md.functional.scaled_tanh(md.tensor(1.0)).item(), 4)
    1.0
    """
    return tanh(x * (2 / 3)) * 1.7159


@tensor_method("log_softmax")
def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """x - log(sum(exp(x))) along `dim`, without overflow. Source: Bridle (1990).

    >>> import minidl as md
    >>> md.functional.log_softmax(md.zeros(1, 2)).exp()
    tensor([[0.5, 0.5]])
    """
    (x,) = raised(floating("log_softmax", x))
    axis = one_axis("log_softmax", dim, x.ndim)
    swapped = x if axis == x.ndim - 1 else transpose(x, axis, -1)
    rows = reshape(swapped, (swapped.size // max(swapped.shape[-1], 1), swapped.shape[-1]))
    y = reshape(LogSoftmax().apply(rows), swapped.shape)
    return y if swapped is x else transpose(y, axis, -1)


@tensor_method("softmax")
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, without overflow. Source: Bridle (1990).

    >>> import minidl as md
    >>> md.functional.softmax(md.zeros(1, 4))
    tensor([[0.25, 0.25, 0.25, 0.25]])
    """
    return exp(log_softmax(x, dim))
