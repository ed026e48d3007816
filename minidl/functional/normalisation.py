"""Batch normalisation and local response normalisation.

Each has one fused kernel for its gradient. When the gradient itself is to be differentiated, the
backward pass computes the same formula with elementary operations instead.
"""

from __future__ import annotations

from typing import Any

from .._kernels import kernels_for
from ..autograd import Function, is_grad_enabled
from ..fusion import take_moments
from ..precision import is_lowered, raised
from ..tensor import Tensor
from .checks import check_floating, check_images
from .reduction import mean, sum
from .shape import pad

__all__ = ["batch_norm", "local_response_norm"]


class BatchNorm(Function):
    """x (N, C, H, W), weight (C,), bias (C,) -> y (N, C, H, W), by the statistics of the batch.

    It also updates `running`, a running mean (C,) and variance (C,), if they are not None.
    `moments` is what is known of x's mean and variance, from the kernel that computed it.
    """

    epilogues = ("residual", "relu")

    def __init__(
        self,
        eps: float,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        moments: Any,
    ) -> None:
        self.eps, self.running, self.momentum, self.moments = eps, running, momentum, moments

    def result_shape(self, x: Any, *affine: Any) -> tuple[int, ...]:
        return x.shape

    def forward(self, x: Any, *affine: Any, **epilogue: Any) -> Any:
        weight, bias = affine or (None, None)
        y, self.mean, self.var = kernels_for(x).batch_norm_forward(
            x, weight, bias, self.eps, **epilogue, moments=self.moments
        )
        del self.moments
        # A ReLU right behind is the gradient kernel's affair too; with a residual in between it is
        # not, for what passes the ReLU is also the residual's gradient.
        self.rectifies_gradient = "relu" in epilogue and "residual" not in epilogue
        self.save(x, weight, y if self.rectifies_gradient else None)
        count = x.size // x.shape[1]
        if count:
            _update_running(self.running[0], self.mean, self.momentum)
            _update_running(self.running[1], self.var * (count / (count - 1)), self.momentum)
        return y

    def backward(self, dy: Tensor) -> Any:
        x, weight, rectified = self.saved
        if is_grad_enabled():
            gradients = self.differentiable_backward(dy, x, weight)
        else:
            arrays = kernels_for(x.data).batch_norm_backward(
                dy.data,
                x.data,
                None if weight is None else weight.data,
                self.mean,
                self.var,
                self.eps,
                y=None if rectified is None else rectified.data,
                out=dy.data if self.may_overwrite else None,
            )
            gradients = tuple(Tensor.from_operation(array, None, 0) for array in arrays)
        return gradients[: len(self.needs)]

    def differentiable_backward(self, dy: Tensor, x: Tensor, weight: Tensor | None) -> Any:
        """dx = weight / std * (dy - mean(dy) - z * mean(dy * z)), with z the normalised input."""
        axes, narrow = (0, 2, 3), x.dtype
        x, dy = x.to(self.mean.dtype), dy.to(self.mean.dtype)
        deviation = x - mean(x, axes, keepdim=True)  # (N, C, H, W)
        inverse_std = (mean(deviation * deviation, axes, keepdim=True) + self.eps) ** -0.5
        z = deviation * inverse_std
        dz = dy if weight is None else dy * _channels(weight)
        dx = inverse_std * (
            dz - mean(dz, axes, keepdim=True) - z * mean(dz * z, axes, keepdim=True)
        )
        return dx.to(narrow), sum(dy * z, axes), sum(dy, axes)


class BatchNormInference(Function):
    """The same by given statistics: mean (C,) and var (C,) are constants."""

    epilogues = ("residual", "relu")
    epilogue = "norm"

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def result_shape(self, x: Any, *constants: Any) -> tuple[int, ...]:
        return x.shape

    def operand(self, x: Any, arrays: list[Any]) -> Any:
        mean, var, *affine = arrays
        weight, bias = affine or (None, None)
        return None if any(self.needs) else (weight, bias, mean, var, self.eps)

    def adopt(self, y: Any, first: Function) -> None:
        """There is nothing to keep where no gradient is needed."""

    def forward(self, x: Any, mean: Any, var: Any, *affine: Any, **epilogue: Any) -> Any:
        weight, bias = affine or (None, None)
        self.save(x if len(affine) and self.needs[3] else None, mean, var, weight)
        return kernels_for(x).batch_norm_inference(x, weight, bias, mean, var, self.eps, **epilogue)

    def backward(self, dy: Tensor) -> Any:
        x, mean, var, weight = self.saved
        inverse_std = (var + self.eps) ** -0.5  # (C,)
        scale = inverse_std if weight is None else weight * inverse_std
        narrow, dy = dy.dtype, dy.to(var.dtype)
        dx = (dy * _channels(scale)).to(narrow) if self.needs[0] else None
        if weight is None:
            return dx, None, None
        dweight = dbias = None
        if self.needs[3]:
            z = (x.to(var.dtype) - _channels(mean)) * _channels(inverse_std)
            dweight = sum(dy * z, (0, 2, 3))
        if self.needs[4]:
            dbias = sum(dy, (0, 2, 3))
        return dx, None, None, dweight, dbias


class LocalResponseNorm(Function):
    """x (N, C, H, W) -> x * scale^-beta with scale = k + a * (sum of squares of neighbours)."""

    def __init__(self, size: int, alpha: float, beta: float, k: float, alpha_over_n: bool) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k
        self.alpha_over_n = alpha_over_n

    def forward(self, x: Any) -> Any:
        y, scale = kernels_for(x).local_response_norm_forward(
            x, self.size, self.alpha, self.beta, self.k, self.alpha_over_n
        )
        self.save(x, scale)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        x, scale = self.saved
        if is_grad_enabled():
            return self.differentiable_backward(dy, x)
        dx = kernels_for(x.data).local_response_norm_backward(
            dy.data, x.data, scale.data, self.size, self.alpha, self.beta, self.alpha_over_n
        )
        return Tensor.from_operation(dx, None, 0)

    def differentiable_backward(self, dy: Tensor, x: Tensor) -> Tensor:
        """dx = dy scale^-beta - 2 a beta x * (dy x scale^(-beta-1) summed over the windows)."""
        a = self.alpha / self.size if self.alpha_over_n else self.alpha
        before, after = self.size // 2, (self.size - 1) // 2
        scale = _sum_of_neighbours(x * x, before, after) * a + self.k
        spread = _sum_of_neighbours(dy * x * scale ** (-self.beta - 1), after, before)
        return dy * scale**-self.beta - x * spread * (2 * a * self.beta)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel to mean 0 and variance 1, then scale by weight and shift by bias.

    Shapes: x and the result (N, C, H, W), all others (C,). weight and bias come together or not
    at all. With `training` the statistics are those of the batch, and the running ones, if given,
    are updated in place: running = (1 - momentum) * running + momentum * batch, with the unbiased
    variance. Otherwise the running statistics are used as constants. Within `autocast` x may have
    16 bits, and so has the result then.

    Raises ValueError if shapes do not fit, if statistics are missing, or if a training batch has
    one value per channel only. Source: Ioffe, Szegedy (2015), "Batch normalization", algorithms 1
    and 2.

    >>> import minidl as md
    >>> x = md.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    >>> md.functional.batch_norm(x, None, None, training=True, eps=0.0).flatten()
    tensor([-1.,  1.])
    """
    check_images("batch_norm", x)
    images = {} if is_lowered(x) else {"input": x}
    check_floating("batch_norm", ["weight", "bias"], **images, weight=weight, bias=bias)
    if (weight is None) != (bias is None):
        raise ValueError("batch_norm: weight and bias come together or not at all")
    per_channel = {
        "running_mean": running_mean,
        "running_var": running_var,
        "weight": weight,
        "bias": bias,
    }
    for name, tensor in per_channel.items():
        if tensor is not None and tensor.shape != (x.shape[1],):
            raise ValueError(
                f"batch_norm: {name} must be ({x.shape[1]},) for input {x.shape}, "
                f"got shape {tensor.shape}"
            )
    affine = () if weight is None or bias is None else (weight, bias)
    if not training:
        if running_mean is None or running_var is None:
            raise ValueError(
                "batch_norm: without training, running_mean and running_var are needed"
            )
        return BatchNormInference(eps).apply(x, running_mean, running_var, *affine)
    count = x.shape[0] * x.shape[2] * x.shape[3]
    if count == 1:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, got input {x.shape}"
        )
    running = running_mean, running_var
    return BatchNorm(eps, running, momentum, take_moments(x)).apply(x, *affine)


def _update_running(running: Tensor | None, batch: Any, momentum: float) -> None:
    if running is not None:
        array = running.data
        array *= 1 - momentum
        array += batch * momentum
        running._bump_version()


def local_response_norm(
    x: Tensor,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    alpha_over_n: bool = False,
) -> Tensor:
    """Divide each value by the activity of neighbouring channels at the same place.

    y[c] = x[c] / (k + alpha * sum of x[j]^2 over j from c - size // 2 to c + (size - 1) // 2)^beta
    for x and y (N, C, H, W). `alpha_over_n` divides alpha by `size`, as Caffe and PyTorch do.
    Raises ValueError if x has not four axes or size is not positive. Source: Krizhevsky et al.
    (2012), section 3.3.

    >>> import minidl as md
    >>> x = md.tensor([1.0, 2.0, 2.0]).reshape(1, 3, 1, 1)
    >>> md.functional.local_response_norm(x, size=3, alpha=1.0, beta=1.0, k=0.0).flatten()
    tensor([0.2       , 0.22222222, 0.25      ])
    """
    (x,) = raised(x)
    check_images("local_response_norm", x)
    if size < 1:
        raise ValueError(f"local_response_norm: size must be positive, got {size}")
    return LocalResponseNorm(size, alpha, beta, k, alpha_over_n).apply(x)


def _channels(statistic: Tensor) -> Tensor:
    """(C,) -> (C, 1, 1), to meet images (N, C, H, W)."""
    return statistic.reshape(-1, 1, 1)


def _sum_of_neighbours(x: Tensor, before: int, after: int) -> Tensor:
    """For every channel c the sum over the channels c - before to c + after that exist."""
    channels = x.shape[1]
    padded = pad(x, (0, 0, 0, 0, before, after))
    total = padded[:, :channels]
    for start in range(1, before + after + 1):
        total = total + padded[:, start : start + channels]
    return total
