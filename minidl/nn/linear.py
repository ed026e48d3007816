"""Fully connected layer, and the two layers that only change or keep the shape."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor, empty, zeros
from . import init
from .arguments import positive
from .module import Module
from .parameter import Parameter


class Linear(Module):
    """y = x W^T + b for the last axis: x (..., in_features) -> (..., out_features).

    The weight (out_features, in_features) starts from He's normal initialiser with fan-in and the
    bias at 0. This differs from PyTorch's default, which `init.torch_legacy_uniform_` gives.

    Raises:
        ValueError: if a size is below 1.
        TypeError: if a size is not an integer.

    >>> import minidl as md
    >>> md.nn.Linear(400, 120)(md.zeros(8, 400)).shape
    (8, 120)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = positive("Linear", "in_features", in_features)
        self.out_features = positive("Linear", "out_features", out_features)
        self.weight = Parameter(empty(out_features, in_features))
        self.register_parameter("bias", Parameter(zeros(out_features)) if bias else None)
        init.he_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class Flatten(Module):
    """Join the axes start_dim ... end_dim into one: (N, C, H, W) -> (N, C*H*W) by default.

    >>> import minidl as md
    >>> md.nn.Flatten()(md.zeros(2, 16, 5, 5)).shape
    (2, 400)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Tensor) -> Tensor:
        """Flatten `x`."""
        return F.flatten(x, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The arguments."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Identity(Module):
    """Hands its input on; stands where a network leaves a layer out.

    >>> import minidl as md
    >>> x = md.ones(2)
    >>> md.nn.Identity()(x) is x
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` itself."""
        return x
