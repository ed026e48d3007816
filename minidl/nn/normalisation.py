"""Normalisation layers: over the batch, and over neighbouring channels."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..functional.checks import check_floating
from ..tensor import Tensor, ones, tensor, zeros
from .arguments import positive
from .module import Module
from .parameter import Parameter


class BatchNorm2d(Module):
    """Normalise each channel to mean 0 and variance 1, then scale and shift.

    x (N, C, H, W) -> (N, C, H, W). In training mode the statistics are those of the batch, and
    running = (1 - momentum) running + momentum batch; in evaluation mode the running statistics
    are used. The batch is divided by the biased variance; the running variance is unbiased.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: weight of the new batch; None for the plain average over all batches.
        affine: whether scale (weight) and shift (bias) are learned.
        track_running_stats: with False there are no running statistics, and evaluation uses the
            batch too.

    Buffers: running_mean, running_var (C,), num_batches_tracked (int64, 0-d).

    Attributes:
        frozen: with True, training mode is as evaluation mode: the running statistics are used and
            stay as they are (for transfer learning).

    Source: Ioffe, Szegedy, "Batch Normalization", ICML 2015, algorithms 1 and 2.

    >>> import minidl as md
    >>> norm = md.nn.BatchNorm2d(8)
    >>> norm(md.randn(4, 8, 5, 5)).shape
    (4, 8, 5, 5)
    >>> int(norm.num_batches_tracked.data)
    1
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = positive("BatchNorm2d", "num_features", num_features)
        if momentum is not None and not 0.0 <= momentum <= 1.0:
            raise ValueError(f"BatchNorm2d: momentum must be in [0, 1] or None, got {momentum}")
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.frozen = False
        c = self.num_features
        self.register_parameter("weight", Parameter(ones(c)) if affine else None)
        self.register_parameter("bias", Parameter(zeros(c)) if affine else None)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(c) if tracked else None)
        self.register_buffer("running_var", ones(c) if tracked else None)
        counter = tensor(np.zeros((), dtype=np.int64)) if tracked else None
        self.register_buffer("num_batches_tracked", counter)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, H, W)."""
        check_floating("BatchNorm2d", input=x)
        if x.ndim != 4 or x.shape[1] != self.num_features:
            raise ValueError(
                f"BatchNorm2d: input must have shape (N, {self.num_features}, H, W), got {x.shape}"
            )
        momentum, training = self.momentum, self.training and not self.frozen
        if training and self.num_batches_tracked is not None:
            self.num_batches_tracked.stored += 1  # not add_(): x may go on waiting, see fusion.py
            if momentum is None:
                momentum = 1.0 / int(self.num_batches_tracked.data)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training=training or self.running_mean is None,
            momentum=0.0 if momentum is None else momentum,
            eps=self.eps,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
            f"{', frozen=True' if self.frozen else ''}"
        )


class LocalResponseNorm(Module):
    """Divide each value by the activity of `size` neighbouring channels at the same place.

    y = x / (k + alpha * sum of squares)^beta, x and y (N, C, H, W).

    Args:
        size, alpha, beta, k: the paper's n, alpha, beta and k, at the paper's values.
        alpha_over_n: divide alpha by `size`, as Caffe and PyTorch do (their alpha is then
            `size` times as large for the same result).

    Source: Krizhevsky, Sutskever, Hinton, NIPS 2012, section 3.3.

    >>> import minidl as md
    >>> md.nn.LocalResponseNorm()(md.ones(1, 96, 27, 27)).shape
    (1, 96, 27, 27)
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 2.0,
        alpha_over_n: bool = False,
    ) -> None:
        super().__init__()
        self.size = positive("LocalResponseNorm", "size", size)
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.alpha_over_n = alpha_over_n

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, H, W)."""
        return F.local_response_norm(
            x, self.size, self.alpha, self.beta, self.k, alpha_over_n=self.alpha_over_n
        )

    def extra_repr(self) -> str:
        """The arguments, leaving out alpha_over_n at its default."""
        text = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        return text + ", alpha_over_n=True" if self.alpha_over_n else text
