"""Activation layers: elementwise functions, and the softmax pair. Shapes stay as they are."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class ReLU(Module):
    """max(x, 0); the gradient at 0 is 0.

    Source: Nair, Hinton, ICML 2010.

    >>> import minidl as md
    >>> md.nn.ReLU()(md.tensor([-1.0, 2.0])).data.tolist()
    [0.0, 2.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.relu(x)


class LeakyReLU(Module):
    """x where x > 0, negative_slope * x elsewhere.

    Source: Maas, Hannun, Ng, ICML 2013.

    >>> import minidl as md
    >>> md.nn.LeakyReLU(0.5)(md.tensor([-1.0, 2.0])).data.tolist()
    [-0.5, 2.0]
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        """The argument."""
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, alpha (exp(x) - 1) elsewhere.

    Source: Clevert, Unterthiner, Hochreiter, ICLR 2016.

    >>> import minidl as md
    >>> md.nn.ELU()(md.tensor([0.0, 2.0])).data.tolist()
    [0.0, 2.0]
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.elu(x, self.alpha)

    def extra_repr(self) -> str:
        """The argument."""
        return f"alpha={self.alpha}"


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    >>> import minidl as md
    >>> float(md.nn.Sigmoid()(md.tensor(0.0)).data)
    0.5
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.sigmoid(x)


class Tanh(Module):
    """tanh(x).

    >>> import minidl as md
    >>> float(md.nn.Tanh()(md.tensor(0.0)).data)
    0.0
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.tanh(x)


class ScaledTanh(Module):
    """1.7159 tanh(2 x / 3): passes nearly through (1, 1) and (-1, -1), where it bends most.

    Source: LeCun, Bottou, Orr, Müller, "Efficient BackProp", 1998, section 4.4.

    >>> import minidl as md
    >>> round(float(md.nn.ScaledTanh()(md.tensor(1.0)).data), 3)
    1.0
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.scaled_tanh(x)


class _AlongAxis(Module):
    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        """The argument."""
        return f"dim={self.dim}"


class Softmax(_AlongAxis):
    """exp(x) / sum exp(x) along `dim`, the last axis by default.

    >>> import minidl as md
    >>> md.nn.Softmax()(md.zeros(1, 4)).data.tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.softmax(x, self.dim)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `dim`, computed without overflow.

    >>> import minidl as md
    >>> round(float(md.nn.LogSoftmax()(md.zeros(1, 4)).data[0, 0]), 4)
    -1.3863
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.log_softmax(x, self.dim)
