"""Dropout layer."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class Dropout(Module):
    """In training, zero each value with probability p and scale the others by 1 / (1 - p).

    The mask is computed from counters (Philox) and not stored; in evaluation mode the layer hands
    its input on.

    Raises:
        ValueError: if p is outside [0, 1].

    Source: Srivastava et al., JMLR 15, 2014 (there scaled at test time; "inverted" here).

    >>> import minidl as md
    >>> x = md.ones(4)
    >>> md.nn.Dropout(0.5).eval()(x).data.tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= p <= 1.0:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return F.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        """The argument."""
        return f"p={self.p}"
